//! Workers' names, and lists of them in sentences.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A worker's name, unique in its run. Ordered as people count: `worker-2` before `worker-10`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(String);

impl WorkerId {
    /// The worker of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name that a local launcher gives its worker number `index`.
    #[must_use]
    pub fn local(index: u32) -> Self {
        Self(format!("worker-{index}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its trailing number, and that number; a number of 20 digits or more counts as text.
    fn parts(&self) -> (&str, Option<u64>) {
        let text = self.0.trim_end_matches(|c: char| c.is_ascii_digit());
        match self.0[text.len()..].parse() {
            Ok(number) => (text, Some(number)),
            Err(_) => (&self.0, None),
        }
    }
}

impl Ord for WorkerId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts()
            .cmp(&other.parts())
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for WorkerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A list of workers as a sentence needs it: `worker-1, worker-3 and worker-7`; long lists are cut.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(pub &'a [WorkerId]);

/// More names than this are counted instead of listed.
const NAMES_LISTED: usize = 8;

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nobody"),
            [one] => write!(f, "{one}"),
            all if all.len() > NAMES_LISTED => {
                for name in &all[..NAMES_LISTED] {
                    write!(f, "{name}, ")?;
                }
                write!(f, "and {} more", all.len() - NAMES_LISTED)
            }
            [first @ .., last] => {
                let first: Vec<_> = first.iter().map(WorkerId::as_str).collect();
                write!(f, "{} and {last}", first.join(", "))
            }
        }
    }
}
