//! Open files: every worker is a connection, and a process may have only so many.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What a coordinator opens besides its workers' connections: files, the store, people who look, workers that come while
/// others have not quite gone.
const OTHERS: u64 = 256;

/// This process may not open as many files as the run has workers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "run.workers = {workers} needs {needed} open files and this process may have {allowed} at most: raise its hard limit \
     (`ulimit -Hn`, LimitNOFILE= of a service) or lower --workers"
)]
pub struct TooFewFiles {
    /// How many workers were asked for.
    pub workers: u32,
    /// A connection each, and what else is open.
    pub needed: u64,
    /// The hard limit.
    pub allowed: u64,
}

/// Makes sure that a connection of every worker can be open, raising this process's soft limit if it is too low.
///
/// # Errors
/// [`TooFewFiles`] when the hard limit is too low as well.
pub fn make_room(workers: u32) -> Result<(), TooFewFiles> {
    let mut limit = getrlimit(Resource::Nofile);
    // `None` stands for no limit.
    let (soft, hard) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    let Some(wanted) = new_soft_limit(workers, soft, hard)? else {
        return Ok(());
    };
    limit.current = Some(wanted);
    setrlimit(Resource::Nofile, limit).map_err(|_| TooFewFiles {
        workers,
        needed: wanted,
        allowed: soft,
    })
}

/// The soft limit to set, if the present one is too low.
fn new_soft_limit(workers: u32, soft: u64, hard: u64) -> Result<Option<u64>, TooFewFiles> {
    let needed = u64::from(workers) + OTHERS;
    if needed > hard {
        return Err(TooFewFiles {
            workers,
            needed,
            allowed: hard,
        });
    }
    Ok((needed > soft).then_some(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_left_alone_raised_or_named_as_the_workers_need() {
        assert_eq!(new_soft_limit(8, 1024, 4096), Ok(None));
        assert_eq!(new_soft_limit(2000, 1024, 4096), Ok(Some(2256)));
        let refused = new_soft_limit(10_000, 1024, 4096).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "run.workers = 10000 needs 10256 open files and this process may have 4096 at most: raise its hard limit \
             (`ulimit -Hn`, LimitNOFILE= of a service) or lower --workers"
        );
    }
}
