//! What this worker has to say, kept until a coordinator has heard it: one that was lost may have taken the last reports
//! with it, and the next one is told again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::v1::session_request::Message;
use proto::v1::{self, SessionRequest};
use tokio::sync::mpsc::UnboundedSender;

/// Reports that are kept: more than a coordinator that is killed can have failed to record.
const REPORTS: usize = 4096;
/// Steps before those that a coordinator knows which are told again: it may know of them from one rank only.
const TOLD_AGAIN: u64 = 2;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The way up, while there is one.
    up: Option<UnboundedSender<SessionRequest>>,
    /// Whether the coordinator has let this worker in.
    welcomed: bool,
    /// Whether it has been told again what it may have missed: before, what is said would come ahead of that.
    told_again: bool,
    /// Of the generation under way, oldest first.
    reports: VecDeque<v1::Progress>,
    /// What this worker last said of where it stands, and neither it nor the coordinator has changed since.
    standing: Option<Message>,
    /// The generation that was announced last.
    announced: u64,
}

impl Outbox {
    /// Says something: now if there is a way, else once there is one again. Heartbeats are of their moment only.
    pub(super) fn say(&self, message: Message) {
        let mut state = self.lock();
        if state.is_overtaken(&message) {
            return;
        }
        match &message {
            Message::Progress(progress) => {
                if state.reports.len() >= REPORTS {
                    state.reports.pop_front();
                }
                state.reports.push_back(progress.clone());
            }
            Message::Ready(_) => {
                state.reports.clear();
                state.standing = None;
            }
            Message::Standby(_) | Message::Leaving(_) => state.standing = Some(message.clone()),
            Message::Join(_) | Message::Heartbeat(_) | Message::Fault(_) | Message::Stacks(_) => {}
        }
        if state.told_again || (state.welcomed && matches!(message, Message::Heartbeat(_))) {
            state.send(message);
        }
    }

    /// The coordinator has let this worker in: from here on it hears that this worker lives.
    pub(super) fn is_welcome(&self) {
        self.lock().welcomed = true;
    }

    /// A stream to a coordinator is open: begins with `join`.
    pub(super) fn open(&self, up: UnboundedSender<SessionRequest>, join: v1::Join) {
        let mut state = self.lock();
        state.up = Some(up);
        state.send(Message::Join(join));
    }

    /// The coordinator has let this worker in and knows of `steps`: everything it may have missed is told again.
    pub(super) fn tell_again(&self, steps: u64) {
        let mut state = self.lock();
        state.told_again = true;
        for report in &state.reports {
            if report.step + TOLD_AGAIN >= steps {
                state.send(Message::Progress(report.clone()));
            }
        }
        if let Some(standing) = &state.standing {
            state.send(standing.clone());
        }
    }

    /// Another generation was announced. Where this worker stood before, also where the training thread says so only now, is
    /// not to be told to a coordinator in the place of a lost one, to which it would look as if it had left this one already,
    /// with what it held then.
    pub(super) fn is_sent_on(&self, generation: u64) {
        let mut state = self.lock();
        state.announced = generation;
        state.standing = None;
    }

    /// The stream is over.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.up = None;
        state.welcomed = false;
        state.told_again = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether it says where this worker stood before it was sent into another generation.
    fn is_overtaken(&self, message: &Message) -> bool {
        match message {
            Message::Standby(standby) => standby.generation < self.announced,
            Message::Leaving(leaving) => leaving.generation < self.announced,
            _ => false,
        }
    }

    fn send(&self, message: Message) {
        if let Some(up) = &self.up {
            // A stream that has just broken: what matters is told again.
            let _ = up.send(SessionRequest {
                message: Some(message),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn progress(step: u64) -> Message {
        Message::Progress(v1::Progress {
            step,
            ..Default::default()
        })
    }

    fn standby(step: u64) -> Message {
        Message::Standby(v1::Standby {
            generation: 3,
            step: Some(step),
            micro_batches: Vec::new(),
        })
    }

    /// In a word each.
    fn heard(stream: &mut mpsc::UnboundedReceiver<SessionRequest>) -> Vec<String> {
        std::iter::from_fn(|| stream.try_recv().ok())
            .map(|request| match request.message.unwrap() {
                Message::Join(_) => "join".to_owned(),
                Message::Progress(progress) => format!("step {}", progress.step),
                Message::Standby(standby) => format!("standby {}", standby.step()),
                Message::Heartbeat(_) => "beat".to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_a_lost_coordinator_may_not_have_recorded_is_told_again_to_the_next() {
        let outbox = Outbox::default();
        let (up, mut first) = mpsc::unbounded_channel();
        outbox.open(up, v1::Join::default());
        outbox.tell_again(0);
        (4..7).for_each(|step| outbox.say(progress(step)));
        assert_eq!(heard(&mut first), ["join", "step 4", "step 5", "step 6"]);
        outbox.close();
        // Without a coordinator it goes on
        (7..9).for_each(|step| outbox.say(progress(step)));
        outbox.say(Message::Heartbeat(v1::Heartbeat::default()));
        outbox.say(standby(9));
        let (up, mut second) = mpsc::unbounded_channel();
        outbox.open(up, v1::Join::default());
        outbox.say(progress(9));
        let beat = || Message::Heartbeat(v1::Heartbeat::default());
        outbox.say(beat());
        assert_eq!(heard(&mut second), ["join"], "it is not let in yet");
        outbox.is_welcome();
        outbox.say(progress(10));
        outbox.say(beat());
        assert_eq!(heard(&mut second), ["beat"], "scores come first");
        outbox.tell_again(7);
        assert_eq!(
            heard(&mut second),
            [
                "step 5",
                "step 6",
                "step 7",
                "step 8",
                "step 9",
                "step 10",
                "standby 9"
            ]
        );
    }

    #[test]
    fn who_was_sent_on_does_not_say_again_where_it_stood_before() {
        let outbox = Outbox::default();
        outbox.say(progress(4));
        outbox.say(standby(5));
        outbox.is_sent_on(4);
        // Its training thread may say so once more before it hears of it.
        outbox.say(standby(5));
        let (up, mut stream) = mpsc::unbounded_channel();
        outbox.open(up, v1::Join::default());
        outbox.tell_again(0);
        assert_eq!(heard(&mut stream), ["join", "step 4"]);
    }

    #[test]
    fn another_generation_leaves_nothing_of_the_one_before() {
        let outbox = Outbox::default();
        outbox.say(progress(4));
        outbox.say(standby(5));
        outbox.say(Message::Ready(v1::Ready::default()));
        let (up, mut stream) = mpsc::unbounded_channel();
        outbox.open(up, v1::Join::default());
        outbox.tell_again(0);
        assert_eq!(heard(&mut stream), ["join"]);
    }
}
