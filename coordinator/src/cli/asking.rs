//! Asking a running coordinator, for a while: one that was stopped accepts connections and answers nothing.

use std::error::Error as _;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use proto::v1::run_service_client::RunServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::{AddressArgs, Failure, LOST, USAGE};
use crate::run_dir::{Address, is_stopped};
use crate::standing::is_in_use;
use crate::terminal::figures::patience;

/// How long a connection may take.
const CONNECTION: Duration = Duration::from_secs(5);
/// How long an answer may take: it is at hand, or one message away.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How long the next word on a stream may take: what is told is renewed every second, and workers have 3 s to say where
/// they are.
pub(super) const NEXT: Duration = Duration::from_secs(10);

/// Whom is asked, for sentences.
#[derive(Debug)]
pub(super) struct Asked {
    address: String,
    /// Known where the run directory is.
    pid: Option<u32>,
    run_dir: Option<PathBuf>,
}

/// Connects to the coordinator that the arguments name.
pub(super) async fn connect(
    args: &AddressArgs,
) -> Result<(RunServiceClient<Channel>, Asked), Failure> {
    let (address, pid) = match (&args.address, &args.run_dir) {
        (Some(address), _) if address.contains("://") => (address.clone(), None),
        (Some(address), _) => (format!("http://{address}"), None),
        (None, Some(run_dir)) => {
            let Address { address, pid, .. } = Address::read(run_dir)?;
            (address, Some(pid))
        }
        (None, None) => {
            return Err(Failure::new(
                USAGE,
                "no run is named: give --run-dir or --address",
            ));
        }
    };
    let asked = Asked {
        address: address.clone(),
        pid,
        run_dir: args.run_dir.clone(),
    };
    let endpoint = Endpoint::from_shared(address).map_err(|error| {
        let sentence = format!(
            "--address {}: {}; give one such as 127.0.0.1:50051",
            asked.address,
            root_cause(&error)
        );
        Failure::new(USAGE, sentence)
    })?;
    match tokio::time::timeout(CONNECTION, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok((RunServiceClient::new(channel), asked)),
        Ok(Err(error)) => Err(asked.unreachable(&root_cause(&error))),
        Err(_) => Err(asked.silent(CONNECTION)),
    }
}

impl Asked {
    /// What the coordinator answers, if it does so within `patience`.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer.map_err(|status| self.refused(&status)),
            Err(_) => Err(self.silent(patience)),
        }
    }

    /// It answered with an error, or its answer broke off.
    fn refused(&self, status: &tonic::Status) -> Failure {
        let address = &self.address;
        // What the coordinator itself says has no source here.
        let sentence = match status.source() {
            None => format!(
                "the coordinator did not answer ({}): try again",
                status.message()
            ),
            Some(_) => format!(
                "the connection to the coordinator at {address} broke before its answer was whole: {}",
                self.what_became_of_it()
            ),
        };
        Failure::new(LOST, sentence)
    }

    /// Nobody listens there.
    fn unreachable(&self, problem: &str) -> Failure {
        let address = &self.address;
        let ended = self.what_became_of_it();
        Failure::new(
            LOST,
            format!("no coordinator answers at {address} ({problem}): {ended}"),
        )
    }

    fn what_became_of_it(&self) -> String {
        match &self.run_dir {
            Some(run_dir) if is_in_use(run_dir) => {
                "it is about to begin, or its run has ended and it writes the report: try again in a moment".into()
            }
            Some(run_dir) => format!(
                "if its run has ended, {} says how; if it was killed, workers may be training on, and \
                 coordinator start --resume --run-dir {} takes them over",
                run_dir.join("summary.json").display(),
                run_dir.display()
            ),
            None => "check --address, or give --run-dir".into(),
        }
    }

    /// It is there and says nothing.
    fn silent(&self, waited: Duration) -> Failure {
        let address = &self.address;
        let what = format!(
            "the coordinator at {address} does not answer within {}",
            patience(waited)
        );
        let sentence = match self.pid {
            Some(pid) if is_stopped(pid) => format!(
                "{what}: its process {pid} was stopped; kill -CONT {pid} lets it go on, or kill -KILL {pid} ends it, and \
                 coordinator start --resume goes on with its run"
            ),
            Some(pid) => format!(
                "{what}: its process {pid} hangs or its machine has no time for it; try again, or kill -KILL {pid} ends it, \
                 and coordinator start --resume goes on with its run"
            ),
            None => format!(
                "{what}: it was stopped, hangs, or is cut off; look at its process, or check --address"
            ),
        };
        Failure::new(LOST, sentence)
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
