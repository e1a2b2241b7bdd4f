//! c10d's rendezvous store, answered by the coordinator.

use std::time::Duration;

use nccl_rs::{Store, StoreError};
use proto::v1;
use proto::v1::store_service_client::StoreServiceClient;
use tokio::runtime::Handle;
use tonic::transport::Channel;

use super::link::Link;

/// The key-value space of one generation. Calls block, so they must not come from a runtime's thread.
#[derive(Debug)]
pub(crate) struct RemoteStore {
    handle: Handle,
    client: StoreServiceClient<Channel>,
    scope: v1::StoreScope,
}

impl RemoteStore {
    /// The store of a generation.
    pub(crate) fn new(link: &Link, generation: u64) -> Self {
        Self {
            handle: link.runtime.handle().clone(),
            client: StoreServiceClient::new(link.channel()),
            scope: v1::StoreScope {
                run_id: link.run_id.clone(),
                generation,
            },
        }
    }

    fn scope(&self) -> Option<v1::StoreScope> {
        Some(self.scope.clone())
    }

    /// Runs one call on the session's runtime and waits for it.
    fn call<T>(
        &self,
        operation: &'static str,
        key: &str,
        waited: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, StoreError> {
        match self.handle.block_on(call) {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
                Err(StoreError::Timeout {
                    key: key.to_owned(),
                    waited,
                })
            }
            Err(status) => Err(StoreError::Failed {
                operation,
                key: key.to_owned(),
                source: status.message().to_owned().into(),
            }),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

impl Store for RemoteStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let request = v1::SetRequest {
            scope: self.scope(),
            key: key.to_owned(),
            value: value.to_vec(),
        };
        self.call("set", key, Duration::ZERO, self.client.clone().set(request))
            .map(drop)
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        let request = v1::GetRequest {
            scope: self.scope(),
            key: key.to_owned(),
            timeout_millis: millis(timeout),
        };
        self.call("get", key, timeout, self.client.clone().get(request))
            .map(|answer| answer.value)
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        let request = v1::AddRequest {
            scope: self.scope(),
            key: key.to_owned(),
            amount,
        };
        self.call("add", key, Duration::ZERO, self.client.clone().add(request))
            .map(|answer| answer.value)
    }

    fn check(&self, keys: &[&str]) -> Result<bool, StoreError> {
        let request = v1::WaitRequest {
            scope: self.scope(),
            keys: owned(keys),
            timeout_millis: 0,
        };
        self.call(
            "check",
            &keys.join(", "),
            Duration::ZERO,
            self.client.clone().wait(request),
        )
        .map(|answer| answer.present)
    }

    fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), StoreError> {
        let request = v1::WaitRequest {
            scope: self.scope(),
            keys: owned(keys),
            timeout_millis: millis(timeout),
        };
        let answer = self.call(
            "wait",
            &keys.join(", "),
            timeout,
            self.client.clone().wait(request),
        )?;
        if answer.present {
            Ok(())
        } else {
            Err(StoreError::Timeout {
                key: keys.join(", "),
                waited: timeout,
            })
        }
    }

    fn compare_set(
        &self,
        key: &str,
        expected: &[u8],
        desired: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let request = v1::CompareSetRequest {
            scope: self.scope(),
            key: key.to_owned(),
            expected: expected.to_vec(),
            desired: desired.to_vec(),
        };
        self.call(
            "compare_set",
            key,
            Duration::ZERO,
            self.client.clone().compare_set(request),
        )
        .map(|answer| answer.value)
    }

    fn delete_key(&self, key: &str) -> Result<bool, StoreError> {
        let request = v1::DeleteRequest {
            scope: self.scope(),
            key: key.to_owned(),
        };
        self.call(
            "delete_key",
            key,
            Duration::ZERO,
            self.client.clone().delete(request),
        )
        .map(|answer| answer.existed)
    }

    fn num_keys(&self) -> Result<i64, StoreError> {
        let request = v1::CountRequest {
            scope: self.scope(),
        };
        self.call(
            "num_keys",
            "",
            Duration::ZERO,
            self.client.clone().count(request),
        )
        .map(|answer| i64::try_from(answer.keys).unwrap_or(i64::MAX))
    }
}
