//! Lets whoever started this process know of its death at once.
//!
//! A killed process closes its sockets only when its memory has been freed, which takes a tenth of a second for a model.
//! The memory is freed by the last of its threads to end, though, and the descriptors by the last that shares their
//! table. So a thread that has a table to itself, and ends early, closes what only it holds within a millisecond.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::ffi;

/// What is written before an end in order.
pub const FAREWELL: u8 = b'.';

/// Standard input, a socket, in the hands of a thread that ends with the process and does nothing else.
///
/// The other end reads [`FAREWELL`] and then nothing after [`Lifeline::farewell`]; nothing alone when the process died.
#[derive(Debug)]
pub struct Lifeline {
    farewell: Sender<()>,
    thread: JoinHandle<()>,
    late: Option<io::Error>,
}

impl Lifeline {
    /// Waits until whoever started this process has taken note of it, which it says with a byte on standard input. False
    /// if it ended before: nobody knows of this process then, and another will be started in its place.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn until_noted() -> io::Result<bool> {
        let mut word = [0];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut word))?;
        Ok(read > 0)
    }

    /// Takes standard input; the rest of the process has `/dev/null` there from now on. To be called before descriptors
    /// are opened that others wait for: the thread holds a copy of each for as long as the process lives.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn take_standard_input() -> io::Result<Self> {
        let nothing = File::open("/dev/null")?;
        let (ready, has_own) = channel();
        let (farewell, told) = channel();
        let thread = std::thread::Builder::new()
            .name("lifeline".to_owned())
            .spawn(move || hold(&ready, &told))?;
        let own = has_own
            .recv()
            .map_err(|_| io::Error::other("its thread ended"))?;
        if own.is_ok() {
            rustix::stdio::dup2_stdin(&nothing)?;
        }
        Ok(Self {
            farewell,
            thread,
            late: own.err(),
        })
    }

    /// Why a death shows only when the process's memory has been freed, where that is so: some sandboxes let no thread
    /// have descriptors of its own.
    pub fn late(&self) -> Option<&io::Error> {
        self.late.as_ref()
    }

    /// Says that the process is about to end in order.
    pub fn farewell(self) {
        // Without the thread there is nobody to say it, and the other end knows already.
        let _ = self.farewell.send(());
        let _ = self.thread.join();
    }
}

fn hold(ready: &Sender<io::Result<()>>, told: &Receiver<()>) {
    // Its receiver waits for it.
    let _ = ready.send(ffi::own_descriptors());
    if told.recv().is_ok() {
        // Who does not listen any more need not know.
        let _ = rustix::io::write(io::stdin(), &[FAREWELL]);
        return;
    }
    // Dropped without a word: what is held is closed by the process's end and nothing before.
    loop {
        std::thread::park();
    }
}
