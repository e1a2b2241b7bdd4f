//! Checks what rots in this repository and no compiler looks at: names that docs mention, borders
//! between crates, unsafe code outside its room, sleeping tests, the map of the tree.
//!
//! Each module is one check: a function from text to [`Finding`]s, proven on a made-up violation
//! beside it. `tests/tree.rs` turns them on the real tree. This crate knows the tree's layout and
//! nothing of what the code does; taste stays with people.

pub mod borders;
pub mod code;
pub mod docs;
pub mod length;
pub mod map;
pub mod pictures;
pub mod places;
pub mod sleep;
pub mod tree;
pub mod unsafe_room;

use std::fmt;

/// Something that breaks a rule of this repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the repository's root.
    pub path: String,
    /// The line, counted from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

impl Finding {
    /// A finding in one line of a file.
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}
