//! What the coordinator has said and the training thread has not yet acted on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1;

/// Why nothing more will come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Ended {
    /// One sentence.
    pub(crate) reason: String,
    /// What the process ends with.
    pub(crate) exit_code: u8,
}

/// Requests that take effect at the next step boundary all ranks agree on.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    stop: AtomicBool,
    stop_with_snapshot: AtomicBool,
    snapshot: AtomicBool,
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

    /// Whether the stop asked for wants a snapshot.
    pub(crate) fn stop_with_snapshot(&self) -> bool {
        self.stop_with_snapshot.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
struct State {
    welcome: Option<v1::Welcome>,
    generation: Option<v1::Generation>,
    current: u64,
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
                state.current = generation.number;
                state.generation = Some(generation);
            }
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
            Message::Stop(stop) => {
                self.requests
                    .stop_with_snapshot
                    .store(stop.snapshot, Ordering::Release);
                self.requests.stop.store(true, Ordering::Release);
            }
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

    /// Whether the session is over, and why.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }

    /// Waits for the answer to Join.
    ///
    /// # Errors
    /// When the session ends first.
    pub(crate) fn welcome(&self) -> Result<v1::Welcome, Ended> {
        self.wait(|state| state.welcome.take())
    }

    /// Waits for a generation that the training thread has not seen.
    ///
    /// # Errors
    /// When the session ends first.
    pub(crate) fn generation(&self) -> Result<v1::Generation, Ended> {
        self.wait(|state| state.generation.take())
    }

    /// Takes all items of the plan that are there. Waits for one where `block` says so and there is none.
    ///
    /// # Errors
    /// When the session ends first.
    pub(crate) fn items(&self, block: bool) -> Result<Vec<v1::PlanItem>, Ended> {
        self.wait(|state| {
            (!block || !state.items.is_empty()).then(|| state.items.drain(..).collect())
        })
    }

    /// Waits until the coordinator ends the session.
    pub(crate) fn release(&self) -> Ended {
        match self.wait(|_| None::<()>) {
            Err(ended) => ended,
            Ok(()) => Ended {
                reason: "released".to_owned(),
                exit_code: 0,
            },
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

    fn wait<T>(&self, mut take: impl FnMut(&mut State) -> Option<T>) -> Result<T, Ended> {
        let mut state = self.lock();
        loop {
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            if let Some(taken) = take(&mut state) {
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
mod tests {
    use super::*;
    use v1::session_response::Message;

    fn generation(number: u64) -> Message {
        Message::Generation(v1::Generation {
            number,
            world_size: 1,
            ..Default::default()
        })
    }

    fn plan(generation: u64, step: u64) -> Message {
        let step = v1::StepPlan {
            step,
            ..Default::default()
        };
        let item = v1::PlanItem {
            item: Some(v1::plan_item::Item::Step(step)),
        };
        Message::Plan(v1::Plan {
            generation,
            items: vec![item],
        })
    }

    #[test]
    fn a_plan_of_an_older_generation_changes_nothing() {
        let inbox = Inbox::default();
        inbox.file(generation(2));
        inbox.file(plan(1, 7));
        inbox.file(plan(2, 8));

        let items = inbox.items(true).unwrap();

        assert_eq!(items.len(), 1);
        let Some(v1::plan_item::Item::Step(step)) = &items[0].item else {
            panic!("a step was planned")
        };
        assert_eq!(step.step, 8);
    }

    #[test]
    fn a_new_generation_drops_what_was_planned_before() {
        let inbox = Inbox::default();
        inbox.file(generation(1));
        inbox.file(plan(1, 7));
        inbox.file(generation(2));

        assert!(inbox.items(false).unwrap().is_empty());
    }

    #[test]
    fn the_first_reason_to_end_is_the_one_that_stands() {
        let inbox = Inbox::default();
        inbox.file(Message::Release(v1::Release {
            reason: "worker-1 died".into(),
            exit_code: 75,
        }));
        inbox.end("stream closed".into(), 1);

        assert_eq!(
            inbox.ended(),
            Some(Ended {
                reason: "worker-1 died".into(),
                exit_code: 75
            })
        );
        assert!(inbox.items(true).is_err());
    }
}
