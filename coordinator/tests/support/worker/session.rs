//! The stream: what the coordinator says is filed, and taken by whoever waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use proto::v1::plan_item::Item;
use proto::v1::session_request::Message as Up;
use proto::v1::session_response::Message as Down;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{Generation, Join, SessionRequest};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

/// What a worker was told and has not done yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) generation: Option<Generation>,
    pub(super) items: VecDeque<Item>,
    pub(super) stop: bool,
    pub(super) snapshot: bool,
    /// The generation that is over, and whether its members leave at a step boundary.
    pub(super) regroup: Option<(u64, bool)>,
    pub(super) run_id: String,
    /// Exit code and reason, once the session is over.
    pub(super) over: Option<(u32, String)>,
}

/// The stream's lower half.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    inbox: Arc<Mutex<Inbox>>,
    changed: Arc<Notify>,
}

impl Session {
    /// Waits for something to take, unless `generation` (0: none) is over first.
    pub(super) async fn wait<T>(
        &self,
        generation: u64,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, End> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inbox = self.inbox.lock().unwrap();
                if let Some(over) = &inbox.over {
                    return Err(End::Released(over.clone()));
                }
                if generation != 0 && inbox.regroup == Some((generation, false)) {
                    return Err(End::Regroup);
                }
                if let Some(taken) = take(&mut inbox) {
                    return Ok(taken);
                }
            }
            changed.await;
        }
    }

    /// Joins as `id`; the stream's messages are filed from here on, until it ends.
    pub(super) async fn open(client: &mut WorkerServiceClient<Channel>, id: &str) -> (Self, Voice) {
        let (up, messages) = mpsc::unbounded_channel();
        let voice = Voice(Some(up));
        voice.say(Up::Join(Join {
            worker_id: id.to_owned(),
            host: "here".to_owned(),
            pid: 4242,
            device: "cpu".to_owned(),
            device_name: "no device".to_owned(),
            threads: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Join::default()
        }));
        let session = Self::default();
        let mut down = client
            .session(UnboundedReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        let filing = session.clone();
        tokio::spawn(async move {
            let over = loop {
                match down.message().await {
                    Ok(Some(message)) => filing.file(message.message.unwrap()),
                    Ok(None) => break (75, "the stream ended".to_owned()),
                    Err(status) => break (75, status.message().to_owned()),
                }
            };
            filing.inbox.lock().unwrap().over.get_or_insert(over);
            filing.changed.notify_waiters();
        });
        (session, voice)
    }

    /// What is there now, without a wait.
    pub(super) fn now<T>(&self, look: impl FnOnce(&mut Inbox) -> T) -> T {
        look(&mut self.inbox.lock().unwrap())
    }

    fn file(&self, message: Down) {
        {
            let mut inbox = self.inbox.lock().unwrap();
            match message {
                Down::Welcome(welcome) => inbox.run_id = welcome.run_id,
                Down::Refused(refused) => inbox.over = Some((refused.exit_code, refused.reason)),
                Down::Generation(generation) => {
                    inbox.items.clear();
                    inbox.generation = Some(generation);
                }
                Down::Plan(plan) => inbox
                    .items
                    .extend(plan.items.into_iter().filter_map(|item| item.item)),
                Down::Stop(_) => inbox.stop = true,
                Down::Snapshot(_) => inbox.snapshot = true,
                Down::Stacks(_) => {}
                Down::Regroup(regroup) => {
                    inbox.regroup = Some((regroup.generation, regroup.at_boundary));
                }
                Down::Release(release) => {
                    inbox
                        .over
                        .get_or_insert((release.exit_code, release.reason));
                }
            }
        }
        self.changed.notify_waiters();
    }
}

/// The stream's upper half, until the worker dies.
#[derive(Debug)]
pub(super) struct Voice(Option<mpsc::UnboundedSender<SessionRequest>>);

impl Voice {
    pub(super) fn say(&self, message: Up) {
        if let Some(up) = &self.0 {
            let _ = up.send(SessionRequest {
                message: Some(message),
            });
        }
    }

    /// Breaks the stream, as a death does.
    pub(super) fn lose(&mut self) {
        self.0 = None;
    }
}

/// Why a worker stops doing what it does.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The coordinator let it go, with exit code and reason, or is gone.
    Released((u32, String)),
    /// Its generation is over.
    Regroup,
    /// It died.
    Died,
}
