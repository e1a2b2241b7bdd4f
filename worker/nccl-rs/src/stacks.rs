//! Where every thread of this process is now: what a run that seems to hang waits for.

use std::time::Duration;

use crate::ffi;

/// How long a thread may take to answer.
const WITHIN: Duration = Duration::from_millis(500);

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStack {
    /// Its number, as the system counts threads.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The functions it is in, innermost first, each with the library it belongs to.
    pub frames: Vec<String>,
    /// Why there are no frames.
    pub problem: Option<String>,
}

/// The stacks of all threads but the calling one, one after the other: each is interrupted for some microseconds.
///
/// Functions of libraries are named as far as they are exported, those of this program as far as its symbols were kept.
#[must_use]
pub fn stacks() -> Vec<ThreadStack> {
    let own = std::fs::read_link("/proc/thread-self").ok();
    let own = own.and_then(|path| path.file_name()?.to_str()?.parse().ok());
    let mut threads: Vec<u64> = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|thread| Some(*thread) != own)
        .collect();
    threads.sort_unstable();
    threads.into_iter().map(stack).collect()
}

fn stack(thread: u64) -> ThreadStack {
    let says = |what: &str| {
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/{what}"));
        text.unwrap_or_default().trim().to_owned()
    };
    let name = says("comm");
    let number = i64::try_from(thread).unwrap_or(i64::MAX);
    match ffi::thread_stack(number, WITHIN) {
        Ok(addresses) => ThreadStack {
            id: thread,
            name,
            // The first two are the handler and what the system called it through.
            frames: addresses
                .iter()
                .skip(2)
                .map(|address| frame(*address))
                .collect(),
            problem: None,
        },
        Err(failure) => ThreadStack {
            id: thread,
            name,
            frames: Vec::new(),
            problem: Some(format!(
                "{}; it waits in {:?}",
                failure.message,
                says("wchan")
            )),
        },
    }
}

fn frame(address: u64) -> String {
    let (mut name, library) = ffi::symbol(address);
    if name.is_empty() {
        // Not exported: a function of this program, whose own table of symbols tells.
        let inside = (address - 1) as usize as *mut std::ffi::c_void;
        backtrace::resolve(inside, |symbol| {
            if let Some(found) = symbol.name() {
                name = format!("{found:#}");
            }
        });
    }
    if name.is_empty() {
        name = format!("{address:#x}");
    }
    format!("{name} ({library})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn waits_here_for_its_test(done: &std::sync::mpsc::Receiver<()>) {
        // Something is left to do afterwards, or this function would be left before the wait.
        std::hint::black_box(done.recv().is_ok());
    }

    #[test]
    fn a_thread_that_waits_is_found_where_it_waits() {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (done, is_done) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("waits".into())
            .spawn(move || {
                ready.send(()).unwrap();
                waits_here_for_its_test(&is_done);
            })
            .unwrap();
        is_ready.recv().unwrap();

        // It may still be on its way into the wait.
        let found = (0..100).find_map(|_| {
            let stack = stacks().into_iter().find(|stack| stack.name == "waits")?;
            let inside = |frame: &String| frame.contains("waits_here_for_its_test");
            stack.frames.iter().any(inside).then_some(stack)
        });

        assert!(found.is_some(), "{:#?}", stacks());
        assert_eq!(found.unwrap().problem, None);
        done.send(()).unwrap();
        thread.join().unwrap();
    }
}
