//! What is wrong with a config, in words for the person who wrote it.

use std::fmt;

/// One mistake: which key, what it was set to, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, e.g. `train.epochs`.
    pub key: String,
    /// The value as it was written, if there is one to show.
    pub value: Option<String>,
    /// Where the value came from, e.g. `--set` or a file's name.
    pub origin: String,
    /// What is wrong, and the fix.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " ({}): {}", self.origin, self.problem)
    }
}

/// Every mistake of a config at once; displays one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "the config has {} mistakes:", many.len())?;
                for mistake in many {
                    write!(f, "\n  {mistake}")?;
                }
                Ok(())
            }
        }
    }
}
