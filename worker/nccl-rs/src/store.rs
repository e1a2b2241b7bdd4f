//! The rendezvous store: the key-value space through which the ranks of a new group find each
//! other. Implemented by the caller, called by c10d.

use std::time::Duration;

/// Why a [`Store`] could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A key did not appear in time: a peer has not arrived, or has died on the way.
    #[error(
        "key {key:?} did not appear in the rendezvous store within {waited:?}; check that every rank of this generation is alive"
    )]
    Timeout {
        /// The key waited for.
        key: String,
        /// How long the caller was willing to wait.
        waited: Duration,
    },
    /// The store answered with a refusal, or could not be reached.
    #[error("rendezvous store failed at {operation} of key {key:?}: {source}")]
    Failed {
        /// The store's operation, as the trait names it.
        operation: &'static str,
        /// The key concerned, empty where there is none.
        key: String,
        /// What went wrong underneath.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An implementation of [`Store`] panicked. The panic was caught at the border to C++.
    #[error("rendezvous store panicked at {operation}: {message}; this is a bug of the store")]
    Panicked {
        /// The store's operation, as the trait names it.
        operation: &'static str,
        /// What the panic said.
        message: String,
    },
}

/// A key-value space shared by all ranks of one group.
///
/// Calls come from the thread that creates the group, and for NCCL also from c10d's own threads;
/// they block, so never create a group on a thread that drives an async runtime. Every generation
/// needs keys of its own (a prefix): c10d writes the same names for every group. An error ends the
/// creation of the group with [`crate::Error::Rendezvous`]; so a store that learns that the
/// generation is over unblocks a waiting creation by returning one.
pub trait Store: Send + Sync {
    /// Sets `key` to `value`, replacing what was there.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// The value of `key`; blocks until there is one.
    ///
    /// # Errors
    /// [`StoreError::Timeout`] when there is none within `timeout`; others as for [`Store::set`].
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError>;

    /// Adds `amount` to the decimal number at `key` (absent: 0) and returns the sum.
    ///
    /// # Errors
    /// As for [`Store::set`]; also when the value is not a decimal number.
    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError>;

    /// Whether all `keys` are there; does not block.
    ///
    /// # Errors
    /// As for [`Store::set`].
    fn check(&self, keys: &[&str]) -> Result<bool, StoreError>;

    /// Blocks until all `keys` are there.
    ///
    /// # Errors
    /// As for [`Store::get`].
    fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), StoreError>;

    /// Sets `key` to `desired` if its value is `expected`, or if it is absent and `expected` is
    /// empty. Returns the value it has afterwards (`expected` if absent still).
    ///
    /// # Errors
    /// As for [`Store::set`].
    fn compare_set(
        &self,
        key: &str,
        expected: &[u8],
        desired: &[u8],
    ) -> Result<Vec<u8>, StoreError>;

    /// Removes `key`; whether it was there.
    ///
    /// # Errors
    /// As for [`Store::set`].
    fn delete_key(&self, key: &str) -> Result<bool, StoreError>;

    /// The number of keys there.
    ///
    /// # Errors
    /// As for [`Store::set`].
    fn num_keys(&self) -> Result<i64, StoreError>;
}
