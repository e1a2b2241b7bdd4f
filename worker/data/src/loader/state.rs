//! Who does what next: the queue of requests and the batches under way. No decoding here.

use super::Request;
use super::sample::Outcome;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::Arc;

/// The loader's queues.
#[derive(Debug, Default)]
pub(super) struct State {
    waiting: VecDeque<Arc<Request>>,
    open: VecDeque<OpenBatch>,
    /// Number of the first open batch.
    first: u64,
    stopped: bool,
}

/// A batch under way. Its rooms are parts of one allocation, handed to the threads and joined again at the end.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) request: Arc<Request>,
    /// One per sample; empty while a thread has it.
    pub(super) rooms: Vec<BytesMut>,
    pub(super) outcomes: Vec<Option<Outcome>>,
    next: usize,
    left: usize,
}

/// One sample to make.
#[derive(Debug)]
pub(super) struct Piece {
    batch: u64,
    index: usize,
    pub(super) request: Arc<Request>,
    pub(super) room: BytesMut,
}

impl Piece {
    /// The sample id.
    pub(super) fn sample(&self) -> u32 {
        self.request.samples[self.index]
    }
}

impl State {
    pub(super) fn push(&mut self, request: Request) {
        self.waiting.push_back(Arc::new(request));
    }

    pub(super) fn pending(&self) -> usize {
        self.waiting.len() + self.open.len()
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Pieces that threads still hold find their batch gone when they come back.
    pub(super) fn clear(&mut self) {
        self.first += self.open.len() as u64;
        self.open.clear();
        self.waiting.clear();
    }

    /// The earliest sample that nobody has taken; opens the next batch if there is room for it.
    pub(super) fn claim(
        &mut self,
        prefetch: usize,
        rooms: impl Fn(&Request) -> Vec<BytesMut>,
    ) -> Option<Piece> {
        loop {
            for (batch, number) in self.open.iter_mut().zip(self.first..) {
                let index = batch.next;
                if let Some(room) = batch.rooms.get_mut(index) {
                    batch.next += 1;
                    let (request, room) = (Arc::clone(&batch.request), std::mem::take(room));
                    return Some(Piece {
                        batch: number,
                        index,
                        request,
                        room,
                    });
                }
            }
            if self.open.len() >= prefetch {
                return None;
            }
            let request = self.waiting.pop_front()?;
            let rooms = rooms(&request);
            let count = rooms.len();
            let outcomes = std::iter::repeat_with(|| None).take(count).collect();
            self.open.push_back(OpenBatch {
                request,
                rooms,
                outcomes,
                next: 0,
                left: count,
            });
        }
    }

    /// Stores a finished sample; true when the batch that is due next is complete.
    pub(super) fn put_back(&mut self, piece: Piece, outcome: Outcome) -> bool {
        let position = piece
            .batch
            .checked_sub(self.first)
            .and_then(|p| usize::try_from(p).ok());
        if let Some(batch) = position.and_then(|position| self.open.get_mut(position)) {
            batch.rooms[piece.index] = piece.room;
            batch.outcomes[piece.index] = Some(outcome);
            batch.left -= 1;
        }
        self.open.front().is_some_and(|batch| batch.left == 0)
    }

    /// The batch that is due next, if it is complete.
    pub(super) fn take_finished(&mut self) -> Option<OpenBatch> {
        if self.open.front()?.left > 0 {
            return None;
        }
        self.first += 1;
        self.open.pop_front()
    }
}
