//! Batches in order: decodes ahead on several threads, never further than there is room; without threads, when it is asked.
//!
//! ```text
//! push -> waiting requests -> open batches (at most `prefetch`) -> next
//!                              `-- each sample is one piece of work; any thread takes the earliest one
//! ```
//!
//! What comes out is a pure function of the requests: neither the number of threads nor their timing shows.

mod sample;
mod state;

use crate::augment::TrainTransform;
use crate::augment::pixels::PixelAugment;
use crate::cache::Cache;
use crate::coco::Split;
use crate::files::{BadImage, OnBadImage};
use sample::Maker;
use state::{Piece, State};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a loader works.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// S, side of the square pictures, pixels, >= 1.
    pub size: u32,
    /// Seed of the augmentation.
    pub seed: u64,
    /// Augmentation of training requests.
    pub train: TrainTransform,
    /// Whether training pictures may be mirrored, where the augmentation does so.
    pub flip: bool,
    /// Where decoded pictures are kept.
    pub cache: Option<Arc<Cache>>,
    /// What is done to the pixels of training requests after that.
    pub pixels: PixelAugment,
    /// What a bad picture does.
    pub on_bad_image: OnBadImage,
    /// Decoding threads; 0: nothing is decoded ahead, [`Loader::next`] does it.
    pub threads: usize,
    /// Batches that may be under way or finished ahead of the caller; 0 counts as 1.
    pub prefetch: usize,
}

/// Which split and transform a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Augmented, from the training split.
    Train,
    /// The whole picture squashed, from the validation split.
    Val,
    /// The whole picture squashed, from the training split: for scoring the training set.
    TrainPlain,
}

/// One batch to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Caller's own number, given back in [`Batch::tag`].
    pub tag: u64,
    /// Epoch, for the augmentation.
    pub epoch: u64,
    /// Split and transform.
    pub purpose: Purpose,
    /// Sample ids, in order.
    pub samples: Vec<u32>,
}

/// A batch of B pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The request's number.
    pub tag: u64,
    /// B sample ids, in the request's order, without the skipped.
    pub sample_ids: Vec<u32>,
    /// `[B, S, S, 3]`, RGB, uint8, one allocation.
    pub pixels: Vec<u8>,
    /// `[B, C]`, 1 where the class is shown.
    pub labels: Vec<f32>,
    /// Pictures that were read with a harmless warning.
    pub warnings: u64,
    /// Pictures left out ([`OnBadImage::Skip`]), every time they are asked for.
    pub skipped: Vec<BadImage>,
}

/// Why a batch could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A picture is missing or unreadable.
    #[error("{0}; leave such pictures out with data.on_bad_image=skip")]
    BadImage(BadImage),
    /// A request names a sample that the split does not have.
    #[error("sample id {id} is outside the {split} split of {len} samples")]
    UnknownSample {
        /// The id.
        id: u32,
        /// Name of the split.
        split: String,
        /// Its length.
        len: usize,
    },
}

/// Decodes requested batches ahead and hands them out in the order of the requests.
///
/// Dropping it ends its threads within the time of one picture.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Of whoever asks for batches, where there are no threads.
    scratch: Mutex<sample::Scratch>,
}

#[derive(Debug)]
struct Shared {
    maker: Maker,
    prefetch: usize,
    state: Mutex<State>,
    /// There may be work: a request came, a batch was taken, or it is time to stop.
    work: Condvar,
    /// A batch may be finished.
    finished: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_finished<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.finished
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The earliest sample that nobody has taken, if there is room for its batch.
    fn claim(&self, state: &mut State) -> Option<Piece> {
        let claimed = state.claim(self.prefetch, |request| self.maker.open(request));
        // A batch without samples is finished by being opened: nobody will put a piece back and say so.
        if state.is_due_finished() {
            self.finished.notify_all();
        }
        claimed
    }

    /// Makes a piece that was claimed, and puts it where it belongs.
    fn make(&self, mut piece: Piece, scratch: &mut sample::Scratch) -> MutexGuard<'_, State> {
        // Whoever waits for the piece must hear of it whatever happens: a thread that is gone with it would be waited for.
        let made = AssertUnwindSafe(|| self.maker.make(&mut piece, scratch));
        let outcome = catch_unwind(made).unwrap_or_else(|_| {
            *scratch = sample::Scratch::default();
            self.maker.cannot(&piece)
        });
        let mut state = self.lock();
        if state.put_back(piece, outcome) {
            self.finished.notify_all();
        }
        state
    }
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        train: Arc<Split>,
        val: Arc<Split>,
        options: LoaderOptions,
    ) -> std::io::Result<Self> {
        let threads = options.threads;
        let shared = Arc::new(Shared {
            prefetch: options.prefetch.max(1),
            maker: Maker::new(train, val, options),
            state: Mutex::default(),
            work: Condvar::new(),
            finished: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            threads: Vec::with_capacity(threads),
            scratch: Mutex::default(),
        };
        for number in 0..threads {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new()
                .name(format!("decode-{number}"))
                .spawn(move || work(&shared))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Queues a batch; never blocks. Threads begin to decode it when it is within `prefetch` of the next batch handed out.
    pub fn push(&self, request: Request) {
        self.shared.lock().push(request);
        self.shared.work.notify_all();
    }

    /// Batches that were pushed and not yet handed out.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.lock().pending()
    }

    /// Forgets everything that was pushed and not handed out, as when a plan is replaced.
    pub fn clear(&self) {
        self.shared.lock().clear();
        // Whoever waits has nothing to wait for any more.
        self.shared.finished.notify_all();
    }

    /// The next batch in the order of the requests, waiting for it; `None` when nothing is queued.
    ///
    /// After an error the batches behind it are still handed out.
    pub fn next(&self) -> Option<Result<Batch, LoadError>> {
        self.next_timed().map(|(batch, _)| batch)
    }

    /// The next batch if it is finished, without waiting; `None` too when nothing is queued.
    pub fn try_next(&self) -> Option<Result<Batch, LoadError>> {
        let finished = self.shared.lock().take_finished()?;
        self.shared.work.notify_all();
        Some(self.shared.maker.assemble(finished))
    }

    /// As [`Loader::next`], with the time spent waiting; without threads, that is decoding.
    pub fn next_timed(&self) -> Option<(Result<Batch, LoadError>, Duration)> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        let finished = loop {
            if state.pending() == 0 {
                return None;
            }
            if let Some(batch) = state.take_finished() {
                break batch;
            }
            state = if self.threads.is_empty() {
                self.advance(state)
            } else {
                self.shared.wait_for_finished(state)
            };
        };
        drop(state);
        self.shared.work.notify_all();
        let waited = start.elapsed();
        Some((self.shared.maker.assemble(finished), waited))
    }

    /// Makes the earliest sample that nobody has taken; where others are at the last ones, waits for them.
    fn advance<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let shared = &*self.shared;
        let Some(piece) = shared.claim(&mut state) else {
            // Opening a batch without samples has finished it.
            if state.is_due_finished() {
                return state;
            }
            return shared.wait_for_finished(state);
        };
        drop(state);
        // In this order alone: nobody waits for the scratch who holds the state.
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        shared.make(piece, &mut scratch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop();
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// A decoding thread's life.
fn work(shared: &Shared) {
    let mut scratch = sample::Scratch::default();
    let mut state = shared.lock();
    while !state.is_stopped() {
        let Some(piece) = shared.claim(&mut state) else {
            state = shared
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        state = shared.make(piece, &mut scratch);
    }
}
