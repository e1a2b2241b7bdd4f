//! Workers' names, and lists of them in sentences.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// A worker's name, unique in its run. Ordered as people count: `worker-2` before `worker-10`.
///
/// Cheap to clone: a worker is named in its session, its deadlines and its groups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub struct WorkerId {
    name: Arc<str>,
    /// The trailing number, and how much of the name comes before it. Known beforehand, since names are compared far more
    /// often than made. A number of 20 digits or more counts as text.
    number: Option<u64>,
    text: usize,
}

impl From<String> for WorkerId {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl Serialize for WorkerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl WorkerId {
    /// The worker of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name: String = name.into();
        let before = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let number = name[before..].parse().ok();
        Self {
            text: if number.is_some() { before } else { name.len() },
            number,
            name: name.into(),
        }
    }

    /// The name that a local launcher gives its worker number `index`.
    #[must_use]
    pub fn local(index: u32) -> Self {
        Self::new(format!("worker-{index}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl Ord for WorkerId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.as_bytes()[..self.text]
            .cmp(&other.name.as_bytes()[..other.text])
            .then_with(|| self.number.cmp(&other.number))
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for WorkerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A list of workers as a sentence needs it: `worker-1, worker-3 and worker-7`; long lists are cut.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(pub &'a [WorkerId]);

/// More names than this are counted instead of listed.
const NAMES_LISTED: usize = 8;

/// Workers of whom only the first few are named, for a sentence about any number of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Crowd {
    /// The first, at most [`NAMES_LISTED`].
    named: Vec<WorkerId>,
    count: usize,
}

impl Crowd {
    /// Of these workers.
    pub fn of<'a>(workers: impl ExactSizeIterator<Item = &'a WorkerId>) -> Self {
        let count = workers.len();
        Self {
            named: workers.take(NAMES_LISTED).cloned().collect(),
            count,
        }
    }

    /// Of these, so many altogether.
    pub fn of_counted<'a>(workers: impl Iterator<Item = &'a WorkerId>, count: usize) -> Self {
        Self {
            named: workers.take(NAMES_LISTED).cloned().collect(),
            count,
        }
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.named, self.count)
    }
}

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0, self.0.len())
    }
}

/// A list of `count` workers of whom `known` are the first.
fn list(f: &mut fmt::Formatter<'_>, known: &[WorkerId], count: usize) -> fmt::Result {
    match known {
        [] => f.write_str("nobody"),
        [one] => write!(f, "{one}"),
        known if count > NAMES_LISTED => {
            for name in known.iter().take(NAMES_LISTED) {
                write!(f, "{name}, ")?;
            }
            write!(f, "and {} more", count - NAMES_LISTED)
        }
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(WorkerId::as_str).collect();
            write!(f, "{} and {last}", first.join(", "))
        }
    }
}
