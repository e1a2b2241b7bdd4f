//! The key-value store behind the process groups of the live generation.
//!
//! One generation at a time: when the next begins, all keys are gone and everyone who waits for one is told.
//!
//! Must not know: what the values mean.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::terminal::figures::patience;

/// Bounds on what comes from outside: c10d's keys are short paths, its values addresses and small blobs.
const KEY_BYTES: usize = 1024;
const VALUE_BYTES: usize = 512 * 1024;
const TOTAL_BYTES: usize = 64 * 1024 * 1024;
const KEYS: usize = 100_000;
/// The longest wait for a key; c10d itself waits for at most its group's timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Why the store refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RendezvousError {
    /// Not the live generation.
    #[error(
        "generation {asked} is not live, {live}: leave its process group and wait for the next generation"
    )]
    Stale {
        /// The generation of the request.
        asked: u64,
        /// Which is.
        live: Live,
    },
    /// The key did not come.
    #[error("no value for key {key:?} within {}: a peer has not come this far", patience(*.waited))]
    TimedOut {
        /// The key.
        key: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Too big or too many.
    #[error("{what} of {size} is over the limit of {limit}")]
    TooMuch {
        /// What is.
        what: &'static str,
        /// How big it is.
        size: usize,
        /// How big it may be.
        limit: usize,
    },
    /// A counter's key holds something else.
    #[error("the value of key {0:?} is not a number to add to")]
    NotANumber(String),
}

/// Which generation is live, for a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live(pub(crate) Option<u64>);

impl std::fmt::Display for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(live) => write!(f, "generation {live} is"),
            None => f.write_str("none is"),
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Rendezvous {
    keys: Mutex<Keys>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Keys {
    generation: Option<u64>,
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Rendezvous {
    /// Empties the store for a new generation.
    pub(crate) fn begin(&self, generation: u64) {
        *self.lock() = Keys {
            generation: Some(generation),
            ..Keys::default()
        };
        self.changed.notify_waiters();
    }

    /// Ends the live generation: everyone who waits is told.
    pub(crate) fn close(&self) {
        *self.lock() = Keys::default();
        self.changed.notify_waiters();
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`RendezvousError::Stale`]; [`RendezvousError::TooMuch`].
    pub(crate) fn set(
        &self,
        generation: u64,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), RendezvousError> {
        self.of(generation)?.put(key, value)?;
        self.changed.notify_waiters();
        Ok(())
    }

    /// The value of a key; waits for it up to `timeout`.
    ///
    /// # Errors
    /// [`RendezvousError::Stale`], also when the generation ends meanwhile; [`RendezvousError::TimedOut`].
    pub(crate) async fn get(
        &self,
        generation: u64,
        key: &str,
        timeout: Duration,
    ) -> Result<Vec<u8>, RendezvousError> {
        let timeout = timeout.min(LONGEST_WAIT);
        let deadline = Instant::now() + timeout;
        loop {
            let changed = self.changed.notified();
            if let Some(value) = self.of(generation)?.values.get(key) {
                return Ok(value.clone());
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(RendezvousError::TimedOut {
                    key: key.to_owned(),
                    waited: timeout,
                });
            }
        }
    }

    /// Whether all keys are there, or come within `timeout`.
    ///
    /// # Errors
    /// [`RendezvousError::Stale`], also when the generation ends meanwhile.
    pub(crate) async fn wait(
        &self,
        generation: u64,
        keys: &[String],
        timeout: Duration,
    ) -> Result<bool, RendezvousError> {
        let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
        loop {
            let changed = self.changed.notified();
            {
                let held = self.of(generation)?;
                if keys.iter().all(|key| held.values.contains_key(key)) {
                    return Ok(true);
                }
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// Adds to a counter, which begins at 0, and answers with the sum. Counters are decimal text, as c10d keeps them.
    ///
    /// # Errors
    /// [`RendezvousError::Stale`]; [`RendezvousError::NotANumber`]; [`RendezvousError::TooMuch`].
    pub(crate) fn add(
        &self,
        generation: u64,
        key: &str,
        amount: i64,
    ) -> Result<i64, RendezvousError> {
        let sum = {
            let mut keys = self.of(generation)?;
            let not_a_number = || RendezvousError::NotANumber(key.to_owned());
            let present = match keys.values.get(key) {
                Some(value) => std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok())
                    .ok_or_else(not_a_number)?,
                None => 0,
            };
            let sum = present.checked_add(amount).ok_or_else(not_a_number)?;
            keys.put(key, sum.to_string().into_bytes())?;
            sum
        };
        self.changed.notify_waiters();
        Ok(sum)
    }

    /// Sets a key to `desired` if it holds `expected`, or is absent and nothing is expected; answers with what the key
    /// then holds, and for an absent key that something was expected of with that expectation (as c10d's own does).
    ///
    /// # Errors
    /// [`RendezvousError::Stale`]; [`RendezvousError::TooMuch`].
    pub(crate) fn compare_set(
        &self,
        generation: u64,
        key: &str,
        expected: Vec<u8>,
        desired: Vec<u8>,
    ) -> Result<Vec<u8>, RendezvousError> {
        {
            let mut keys = self.of(generation)?;
            match keys.values.get(key) {
                Some(present) if *present != expected => return Ok(present.clone()),
                None if !expected.is_empty() => return Ok(expected),
                _ => keys.put(key, desired.clone())?,
            }
        }
        self.changed.notify_waiters();
        Ok(desired)
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// [`RendezvousError::Stale`].
    pub(crate) fn delete(&self, generation: u64, key: &str) -> Result<bool, RendezvousError> {
        let mut keys = self.of(generation)?;
        let removed = keys.values.remove(key);
        keys.bytes -= removed.as_ref().map_or(0, |value| value.len() + key.len());
        Ok(removed.is_some())
    }

    /// How many keys there are.
    ///
    /// # Errors
    /// [`RendezvousError::Stale`].
    pub(crate) fn count(&self, generation: u64) -> Result<u64, RendezvousError> {
        Ok(self.of(generation)?.values.len() as u64)
    }

    fn of(&self, generation: u64) -> Result<MutexGuard<'_, Keys>, RendezvousError> {
        let keys = self.lock();
        match keys.generation {
            Some(live) if live == generation => Ok(keys),
            live => Err(RendezvousError::Stale {
                asked: generation,
                live: Live(live),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        // Every change under the lock is whole before anything that could panic.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), RendezvousError> {
        let within = |what, size, limit| {
            if size > limit {
                Err(RendezvousError::TooMuch { what, size, limit })
            } else {
                Ok(())
            }
        };
        within("a key", key.len(), KEY_BYTES)?;
        within("a value", value.len(), VALUE_BYTES)?;
        let before = self
            .values
            .get(key)
            .map_or(0, |value| value.len() + key.len());
        let bytes = self.bytes - before + value.len() + key.len();
        within("the sum of keys and values", bytes, TOTAL_BYTES)?;
        within(
            "the number of keys",
            self.values.len() + usize::from(before == 0),
            KEYS,
        )?;
        self.bytes = bytes;
        self.values.insert(key.to_owned(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Rendezvous {
        let rendezvous = Rendezvous::default();
        rendezvous.begin(7);
        rendezvous
    }

    #[tokio::test]
    async fn a_get_waits_until_the_key_is_set() {
        let rendezvous = live();
        let (value, ()) = tokio::join!(
            rendezvous.get(7, "address", Duration::from_secs(60)),
            async { rendezvous.set(7, "address", b"here".to_vec()).unwrap() },
        );
        assert_eq!(value.unwrap(), b"here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_get_without_a_set_times_out_naming_the_key() {
        let error = live()
            .get(7, "address", Duration::from_secs(5))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no value for key \"address\" within 5 s: a peer has not come this far"
        );
        assert!(
            !live()
                .wait(7, &["a".to_owned()], Duration::from_secs(5))
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn whoever_waits_when_the_generation_ends_is_told() {
        let rendezvous = live();
        let (value, ()) = tokio::join!(
            rendezvous.get(7, "address", Duration::from_secs(60)),
            async { rendezvous.begin(8) },
        );
        assert_eq!(
            value.unwrap_err(),
            RendezvousError::Stale {
                asked: 7,
                live: Live(Some(8))
            }
        );
    }

    #[test]
    fn counters_add_up_and_compare_set_answers_with_what_is_there() {
        let rendezvous = live();
        assert_eq!(rendezvous.add(7, "n", 2).unwrap(), 2);
        assert_eq!(rendezvous.add(7, "n", -5).unwrap(), -3);
        let set = |expected: &str, desired: &str| {
            rendezvous
                .compare_set(7, "k", expected.into(), desired.into())
                .unwrap()
        };
        assert_eq!(set("x", "a"), b"x");
        assert_eq!(set("", "a"), b"a");
        assert_eq!(set("b", "c"), b"a");
        assert_eq!(set("a", "c"), b"c");
        assert_eq!(rendezvous.count(7).unwrap(), 2);
        assert!(rendezvous.delete(7, "k").unwrap());
        assert!(!rendezvous.delete(7, "k").unwrap());
        assert!(matches!(
            rendezvous.add(7, "n", i64::MIN),
            Err(RendezvousError::NotANumber(_))
        ));
    }

    #[test]
    fn the_total_is_bounded_and_replacing_or_deleting_frees() {
        let rendezvous = live();
        let value = || vec![0; VALUE_BYTES];
        let fits = TOTAL_BYTES / (VALUE_BYTES + 3);
        for n in 0..fits {
            rendezvous.set(7, &format!("{n:03}"), value()).unwrap();
        }
        rendezvous.set(7, "000", value()).unwrap();
        assert!(matches!(
            rendezvous.set(7, "new", value()),
            Err(RendezvousError::TooMuch { .. })
        ));
        rendezvous.delete(7, "001").unwrap();
        rendezvous.set(7, "new", value()).unwrap();
        let long = "k".repeat(KEY_BYTES + 1);
        assert!(matches!(
            rendezvous.set(7, &long, vec![]),
            Err(RendezvousError::TooMuch { .. })
        ));
    }
}
