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
        self.is_due_finished()
    }

    /// Whether the batch that is due next is complete; one without samples is from the start.
    pub(super) fn is_due_finished(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::super::Purpose;
    use super::*;

    fn request(tag: u64, samples: u32) -> Request {
        Request {
            tag,
            epoch: 0,
            purpose: Purpose::Train,
            samples: (0..samples).collect(),
        }
    }

    fn rooms(request: &Request) -> Vec<BytesMut> {
        vec![BytesMut::new(); request.samples.len()]
    }

    fn claim(state: &mut State, prefetch: usize) -> Option<(u64, u32)> {
        let piece = state.claim(prefetch, rooms)?;
        Some((piece.request.tag, piece.sample()))
    }

    #[test]
    fn no_more_batches_are_opened_than_there_is_room_for_until_one_is_taken() {
        // given five batches of two and room for two
        let mut state = State::default();
        (0..5).for_each(|tag| state.push(request(tag, 2)));
        // when threads take whatever there is
        let pieces: Vec<Piece> = std::iter::from_fn(|| state.claim(2, rooms)).collect();
        // then it is the first two batches, in order
        let taken: Vec<(u64, u32)> = pieces.iter().map(|p| (p.request.tag, p.sample())).collect();
        assert_eq!(taken, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        // and when all of them are finished, there is still no room
        for piece in pieces {
            state.put_back(piece, Outcome::Unknown);
        }
        assert_eq!(claim(&mut state, 2), None);
        // until one is handed out
        assert_eq!(state.take_finished().map(|b| b.request.tag), Some(0));
        assert_eq!(claim(&mut state, 2), Some((2, 0)));
        assert_eq!(claim(&mut state, 2), Some((2, 1)));
        assert_eq!(claim(&mut state, 2), None);
        assert_eq!(state.pending(), 4);
    }

    #[test]
    fn a_batch_that_is_finished_first_waits_for_the_one_before_it() {
        let mut state = State::default();
        (0..2).for_each(|tag| state.push(request(tag, 1)));
        let [Some(first), Some(second)] = [(); 2].map(|()| state.claim(2, rooms)) else {
            panic!("two pieces")
        };

        assert!(!state.put_back(second, Outcome::Unknown));
        assert!(state.take_finished().is_none());
        assert!(state.put_back(first, Outcome::Unknown));

        let tags = [(); 2].map(|()| state.take_finished().map(|batch| batch.request.tag));
        assert_eq!(tags, [Some(0), Some(1)]);
    }

    #[test]
    fn a_piece_of_a_forgotten_batch_does_not_end_up_in_a_new_one() {
        // given
        let mut state = State::default();
        state.push(request(0, 1));
        let old = state.claim(1, rooms).expect("a piece");
        // when
        state.clear();
        state.push(request(1, 1));
        let new = state.claim(1, rooms).expect("a piece");
        // then
        assert!(!state.put_back(old, Outcome::Unknown));
        assert!(state.take_finished().is_none());
        assert!(state.put_back(new, Outcome::Unknown));
        assert_eq!(
            state.take_finished().map(|batch| batch.request.tag),
            Some(1)
        );
    }
}
