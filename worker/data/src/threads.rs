//! How many threads compute and decode: together no more than the processors that a process may use.

/// The variable by which whoever starts several processes on one machine tells each how many processors are its.
pub const PROCESSORS: &str = "HGAT_PROCESSORS";

/// What takes the decoded pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// A model on the same processors.
    Processors,
    /// A model on a device of its own, which a thread feeds.
    Device,
}

/// Threads of a process that trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Threads that compute, one of which asks for pictures; 1 at least.
    pub compute: u32,
    /// Threads that decode ahead; 0: who asks for pictures decodes them then.
    pub decoding: u32,
}

impl Threads {
    /// Shares `processors` (0 counts as 1) out between the numbers that were not asked for. Together they are no more
    /// than that, but for what was asked for and for the one thread that computes at least.
    ///
    /// Where the model is on the processors, decoding takes a hundredth of them: one thread for eight. On fewer than four
    /// all compute and none decodes ahead, for a thread that hardly ever runs is not worth a quarter of them. A device
    /// needs one thread to feed it for seven that decode.
    #[must_use]
    pub fn share_out(
        processors: u32,
        consumer: Consumer,
        compute: Option<u32>,
        decoding: Option<u32>,
    ) -> Self {
        let processors = processors.max(1);
        let rest = |taken: u32| processors.saturating_sub(taken);
        let eighth = (processors / 8).max(1);
        let (compute, decoding) = match (compute, decoding, consumer) {
            (Some(compute), Some(decoding), _) => (compute, decoding),
            (Some(compute), None, _) => (compute, rest(compute.max(1))),
            (None, Some(decoding), _) => (rest(decoding), decoding),
            (None, None, Consumer::Device) => (eighth, rest(eighth)),
            (None, None, Consumer::Processors) if processors < 4 => (processors, 0),
            (None, None, Consumer::Processors) => (rest(eighth), eighth),
        };
        Self {
            compute: compute.max(1),
            decoding,
        }
    }

    /// Both together.
    #[must_use]
    pub fn all(self) -> u32 {
        self.compute.saturating_add(self.decoding)
    }
}

/// [`PROCESSORS`] holds no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "environment variable {PROCESSORS} = {0:?} is not a number of processors: give a whole one such as 4, or unset it"
)]
pub struct NoNumber(String);

/// Processors that this process may use, 1 at least: the least of its affinity, its cgroup's quota (versions 1 and 2) and
/// [`PROCESSORS`]. The environment is given by the caller.
///
/// # Errors
/// [`NoNumber`]: a process that took all processors instead would crowd out those that it was to leave some to.
pub fn processors(variable: impl Fn(&str) -> Option<String>) -> Result<u32, NoNumber> {
    let found = std::thread::available_parallelism().map_or(1, usize::from);
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    let Some(text) = variable(PROCESSORS) else {
        return Ok(found);
    };
    match text.trim().parse::<u32>() {
        Ok(allowed) => Ok(allowed.clamp(1, found)),
        Err(_) => Err(NoNumber(text)),
    }
}

/// The compute threads that `OMP_NUM_THREADS` asks for, if it is a number above 0; of a list the first.
#[must_use]
pub fn asked(variable: impl Fn(&str) -> Option<String>) -> Option<u32> {
    let text = variable("OMP_NUM_THREADS")?;
    let threads = text.split(',').next()?.trim().parse().ok()?;
    (threads > 0).then_some(threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share_out(processors: u32, consumer: Consumer, asked: [Option<u32>; 2]) -> (u32, u32) {
        let threads = Threads::share_out(processors, consumer, asked[0], asked[1]);
        (threads.compute, threads.decoding)
    }

    #[test]
    fn a_few_processors_are_not_exceeded_by_a_single_thread() {
        use Consumer::{Device, Processors};
        for (processors, on_processors, with_device) in [
            (0, (1, 0), (1, 0)),
            (1, (1, 0), (1, 0)),
            (2, (2, 0), (1, 1)),
            (3, (3, 0), (1, 2)),
            (4, (3, 1), (1, 3)),
            (8, (7, 1), (1, 7)),
            (16, (14, 2), (2, 14)),
        ] {
            let none = [None, None];
            assert_eq!(share_out(processors, Processors, none), on_processors);
            assert_eq!(share_out(processors, Device, none), with_device);
        }
    }

    #[test]
    fn decoding_gets_what_compute_leaves_and_the_other_way_round() {
        for (processors, asked, expected) in [
            (16, [Some(4), None], (4, 12)),
            (16, [None, Some(6)], (10, 6)),
            (16, [None, Some(0)], (16, 0)),
            (1, [Some(1), None], (1, 0)),
            (2, [Some(1), None], (1, 1)),
            // What was asked for stays, and nothing is added to it.
            (16, [Some(20), None], (20, 0)),
            (16, [Some(20), Some(9)], (20, 9)),
            (2, [None, Some(4)], (1, 4)),
        ] {
            let threads = share_out(processors, Consumer::Processors, asked);
            assert_eq!(threads, expected, "{processors} {asked:?}");
        }
    }

    proptest! {
        #[test]
        fn together_they_are_within_the_processors_or_what_was_asked_for(
            processors in 0_u32..600,
            device in any::<bool>(),
            compute in proptest::option::of(1_u32..700),
            decoding in proptest::option::of(0_u32..700),
        ) {
            let consumer = if device { Consumer::Device } else { Consumer::Processors };
            let threads = Threads::share_out(processors, consumer, compute, decoding);
            // One thread computes at least, whatever is left.
            let least = compute.unwrap_or(1) + decoding.unwrap_or(0);
            prop_assert!(threads.all() <= processors.max(least), "{threads:?}");
            prop_assert!(threads.compute >= 1);
            prop_assert!(compute.is_none_or(|asked| threads.compute == asked));
            prop_assert!(decoding.is_none_or(|asked| threads.decoding == asked));
        }
    }

    #[test]
    fn who_started_this_process_may_give_it_fewer_processors_and_never_more() {
        let with = |text: &'static str| processors(move |_| Some(text.to_owned()));
        let all = processors(|_| None).unwrap();
        assert!(all >= 1);
        for (text, expected) in [("1", 1), (" 1 ", 1), ("0", 1), ("4000000", all)] {
            assert_eq!(with(text), Ok(expected), "{text:?}");
        }
        for text in ["abc", "", "-1", "1.5"] {
            let refused = with(text).unwrap_err().to_string();
            let named = format!("environment variable HGAT_PROCESSORS = {text:?} is not a number");
            assert!(refused.starts_with(&named), "{refused}");
        }
    }

    #[test]
    fn the_environment_asks_for_compute_threads_with_a_number_above_none() {
        let of = |text: &'static str| asked(move |_| Some(text.to_owned()));
        for (text, expected) in [
            ("3", Some(3)),
            ("4,2", Some(4)),
            ("0", None),
            ("many", None),
        ] {
            assert_eq!(of(text), expected, "{text:?}");
        }
        assert_eq!(asked(|_| None), None);
    }
}
