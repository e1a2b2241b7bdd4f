//! Where a coordinator is: at the address that was given, or at the one that the run directory names by now.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::identity::Identity;
use super::link::LinkError;

/// A lost coordinator is looked for so often.
pub(super) const LOOKED_FOR_EVERY: Duration = Duration::from_millis(100);

/// The coordinator at `address`, or the one that the run directory names by now, and its address.
pub(super) async fn connect(
    address: &str,
    identity: &Identity,
    patience: Duration,
) -> Result<(String, Channel), LinkError> {
    let give_up = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(20);
    loop {
        let address = identity
            .written_address()
            .unwrap_or_else(|| address.to_owned());
        match endpoint(&address)?.connect().await {
            Ok(channel) => return Ok((address, channel)),
            Err(error) if tokio::time::Instant::now() + pause >= give_up => {
                let reason = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                return Err(LinkError::Connect { address, reason });
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// A coordinator at the old address, or at the one that the run directory names now.
pub(super) async fn find(
    address: &str,
    identity: &Identity,
    give_up: tokio::time::Instant,
) -> Option<(String, Channel)> {
    while tokio::time::Instant::now() < give_up {
        let address = identity
            .written_address()
            .unwrap_or_else(|| address.to_owned());
        if let Ok(endpoint) = endpoint(&address)
            && let Ok(channel) = endpoint.connect().await
        {
            return Some((address, channel));
        }
        tokio::time::sleep(LOOKED_FOR_EVERY).await;
    }
    None
}

fn endpoint(address: &str) -> Result<Endpoint, LinkError> {
    let endpoint = Endpoint::from_shared(address.to_owned());
    let endpoint = endpoint.map_err(|source| LinkError::Address {
        address: address.to_owned(),
        source,
    })?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5)))
}
