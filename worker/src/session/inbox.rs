//! What the coordinator has said and the training thread has not yet acted on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::v1;

/// How long a worker that was told to end waits for others to take the state that it holds. A hanging peer is given up
/// after `fault.timeout`, 5 s by default, and whoever tells processes to end kills them after 10 s at the earliest.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(8);

/// Why nothing more will come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Ended {
    /// One sentence.
    pub(crate) reason: String,
    /// What the process ends with.
    pub(crate) exit_code: u8,
}

/// Why a wait for the coordinator's word was in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Break {
    /// Nothing more will come.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The generation this worker is in is over; the next one will come.
    #[error("the generation is over: {0}")]
    Regroup(String),
}

/// Requests that take effect at the next boundary all ranks agree on: between two steps, or between two batches of an
/// evaluation.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    stop: AtomicBool,
    snapshot: AtomicBool,
    regroup: AtomicBool,
    drain: AtomicBool,
}

impl Requests {
    /// Whether this rank was asked to stop.
    pub(crate) fn stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether this rank was asked for a snapshot since the last call.
    pub(crate) fn take_snapshot(&self) -> bool {
        self.snapshot.swap(false, Ordering::AcqRel)
    }

    /// Whether this rank was asked to leave its generation.
    pub(crate) fn regroup(&self) -> bool {
        self.regroup.load(Ordering::Acquire)
    }

    /// Whether this process was told to end.
    pub(crate) fn drain(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    /// Whether any of them ends the generation at its next boundary, whatever the other ranks were asked for.
    pub(crate) fn end_the_generation(&self) -> bool {
        self.stop() || self.regroup() || self.drain()
    }
}

/// Where the answer to a call that goes on beside training will be.
#[derive(Debug)]
pub(crate) struct Answer<T>(Mutex<Option<T>>);

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Answer<T> {
    fn put(&self, answer: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug, Default)]
struct State {
    welcome: Option<v1::Welcome>,
    generation: Option<v1::Generation>,
    /// The generation that was announced last.
    current: u64,
    /// Whether this worker is in a generation, or holds what the next one begins with.
    needed: bool,
    /// That the present generation is over at once, and why.
    over: Option<String>,
    items: VecDeque<v1::PlanItem>,
    ended: Option<Ended>,
}

/// Filled by the stream, emptied by the training thread.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Read by the training thread once a step.
    pub(crate) requests: Requests,
}

impl Inbox {
    /// Files one message of the coordinator.
    pub(crate) fn file(&self, message: v1::session_response::Message) {
        use v1::session_response::Message;
        let mut state = self.lock();
        match message {
            Message::Welcome(welcome) => state.welcome = Some(welcome),
            Message::Generation(generation) => {
                // Whatever was planned belongs to a membership that is over.
                state.items.clear();
                state.over = None;
                self.requests.regroup.store(false, Ordering::Release);
                state.current = generation.number;
                state.generation = Some(generation);
            }
            Message::Regroup(regroup) if regroup.generation != state.current => {}
            Message::Regroup(regroup) if regroup.at_boundary => {
                self.requests.regroup.store(true, Ordering::Release);
            }
            Message::Regroup(regroup) => state.over = Some(regroup.reason),
            Message::Plan(plan) if plan.generation == state.current => {
                state.items.extend(plan.items)
            }
            Message::Plan(plan) => {
                tracing::debug!(
                    plan.generation,
                    state.current,
                    "plan of another generation ignored"
                );
            }
            Message::Stop(_) => self.requests.stop.store(true, Ordering::Release),
            // Answered by the stream itself.
            Message::Stacks(_) => {}
            Message::Snapshot(_) => self.requests.snapshot.store(true, Ordering::Release),
            Message::Release(release) => end(&mut state, release.reason, release.exit_code),
            Message::Refused(refused) => end(&mut state, refused.reason, refused.exit_code),
        }
        self.changed.notify_all();
    }

    /// Notes that the stream is over. A reason given by the coordinator stands.
    pub(crate) fn end(&self, reason: String, exit_code: u8) {
        end(&mut self.lock(), reason, u32::from(exit_code));
        self.changed.notify_all();
    }

    /// The generation that was announced last; 0: none.
    pub(crate) fn present(&self) -> u64 {
        self.lock().current
    }

    /// Whether the session is over, and why.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }

    /// Notes that this process was told to end: at the next step boundary where it is in a generation or holds a state,
    /// else at once.
    pub(crate) fn drain(&self) {
        // Under the lock, or whoever is about to wait would miss it.
        let mut state = self.lock();
        self.requests.drain.store(true, Ordering::Release);
        if !state.needed {
            end(&mut state, "this worker was told to end".to_owned(), 0);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the generation this worker is in is over at once.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    /// Whether the generation this worker is in goes on.
    ///
    /// # Errors
    /// When it, or the session, is over.
    pub(crate) fn goes_on(&self) -> Result<(), Break> {
        let state = self.lock();
        match (&state.ended, &state.over) {
            (Some(ended), _) => Err(ended.clone().into()),
            (None, Some(reason)) => Err(Break::Regroup(reason.clone())),
            (None, None) => Ok(()),
        }
    }

    /// Whether the first pass of a step is to be done: also where the generation is over, unless this process was told to
    /// end. What it computes is kept for the next generation, and peers that have begun theirs are waited for anyway.
    ///
    /// # Errors
    /// When the session is over, or the generation and this process with it.
    pub(crate) fn lets_begin_step(&self) -> Result<(), Break> {
        match self.goes_on() {
            Err(Break::Regroup(_)) if !self.requests.drain() => Ok(()),
            found => found,
        }
    }

    /// Waits until `generation` need not be attended any more: it is over at once, another one was announced, or the
    /// session ended. `Some` in the first case and where the session ended with a failure: then its process group is in
    /// the way.
    pub(crate) fn until_over(&self, generation: u64) -> Option<String> {
        let mut state = self.lock();
        loop {
            if let Some(ended) = &state.ended {
                return (ended.exit_code != 0).then(|| ended.reason.clone());
            }
            if state.current != generation {
                return None;
            }
            if let Some(reason) = &state.over {
                return Some(reason.clone());
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the answer to Join.
    ///
    /// # Errors
    /// When the session ends first.
    pub(crate) fn welcome(&self) -> Result<v1::Welcome, Ended> {
        self.wait(|state| Ok(state.welcome.take()))
    }

    /// Waits for a generation that the training thread has not seen. A worker that was told to end waits for none, unless
    /// it `holds` the run's state: the others may be told to end as well, and somebody has to hand it over.
    ///
    /// # Errors
    /// When the session ends first.
    pub(crate) fn generation(&self, holds: bool) -> Result<v1::Generation, Ended> {
        let mut state = self.lock();
        state.needed = holds;
        let patience = if holds {
            HAND_OVER_WITHIN
        } else {
            Duration::ZERO
        };
        let mut told = None;
        loop {
            let left = self.requests.drain().then(|| {
                let told = *told.get_or_insert_with(Instant::now);
                patience.saturating_sub(told.elapsed())
            });
            if left == Some(Duration::ZERO) {
                end(&mut state, "this worker was told to end".to_owned(), 0);
            }
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            if let Some(generation) = state.generation.take() {
                state.needed = true;
                return Ok(generation);
            }
            state = match left {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits for the announcement of the next generation and leaves it for [`Inbox::generation`] to take.
    ///
    /// # Errors
    /// When the session ends first, or this generation is over at once.
    pub(crate) fn announcement(&self) -> Result<(), Break> {
        self.wait(|state| match &state.over {
            Some(reason) => Err(Break::Regroup(reason.clone())),
            None => Ok(state.generation.is_some().then_some(())),
        })
    }

    /// Waits for the answer to a call of this generation that goes on beside training.
    ///
    /// # Errors
    /// When the session or the generation ends first. The answer may then never come: it may need other ranks, and they
    /// wait for this one.
    pub(crate) fn answered<T>(&self, answer: &Answer<T>) -> Result<T, Break> {
        self.wait(|state| match answer.take() {
            Some(answer) => Ok(Some(answer)),
            None => match &state.over {
                Some(reason) => Err(Break::Regroup(reason.clone())),
                None => Ok(None),
            },
        })
    }

    /// Gives the answer that [`Inbox::answered`] waits for.
    pub(crate) fn answer<T>(&self, place: &Answer<T>, answer: T) {
        let state = self.lock();
        place.put(answer);
        drop(state);
        self.changed.notify_all();
    }

    /// Whether a generation was announced that the training thread has not seen.
    pub(crate) fn is_announced(&self) -> bool {
        self.lock().generation.is_some()
    }

    /// Takes all items of the plan that are there. Waits for one where `block` says so and there is none.
    ///
    /// # Errors
    /// When the session or the generation ends first.
    pub(crate) fn items(&self, block: bool) -> Result<Vec<v1::PlanItem>, Break> {
        self.wait(|state| {
            if let Some(reason) = &state.over {
                return Err(Break::Regroup(reason.clone()));
            }
            Ok((!block || !state.items.is_empty()).then(|| state.items.drain(..).collect()))
        })
    }

    /// Waits, after this worker has done its part, until the coordinator ends the session, or wants it in another
    /// generation. Where `all_stop`, ranks that were asked to a boundary have come to it, and to more than that.
    pub(crate) fn release(&self, all_stop: bool) -> Break {
        let waited = self.wait(|state| match &state.over {
            Some(reason) => Err(Break::Regroup(reason.clone())),
            None if self.requests.regroup() && !all_stop => {
                Err(Break::Regroup("at the end".to_owned()))
            }
            None => Ok(None::<std::convert::Infallible>),
        });
        match waited {
            Err(why) => why,
            Ok(never) => match never {},
        }
    }

    /// Waits for the coordinator to end the session, but no longer than `patience`.
    pub(crate) fn released_within(&self, patience: Duration) -> Option<Ended> {
        let open = |state: &mut State| state.ended.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), patience, open);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .ended
            .clone()
    }

    fn wait<T, E: From<Ended>>(
        &self,
        mut take: impl FnMut(&mut State) -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let mut state = self.lock();
        loop {
            if let Some(ended) = &state.ended {
                return Err(ended.clone().into());
            }
            if let Some(taken) = take(&mut state)? {
                return Ok(taken);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it ever does, the state is still whole messages.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(state: &mut State, reason: String, exit_code: u32) {
    let exit_code = u8::try_from(exit_code).unwrap_or(1);
    state.ended.get_or_insert(Ended { reason, exit_code });
}

#[cfg(test)]
mod tests;
