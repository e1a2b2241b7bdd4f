//! What ranks tell each other at the end of an evaluation: what they were asked for, and scores that no coordinator has
//! taken.

use nccl_rs::Gathering;
use tch::{Device, Tensor};

use super::replica::Replica;
use super::tally::{Seen, Tally};
use crate::error::WorkerError;

/// So many ranks after a rank hold its scores as well while there is no coordinator: they are lost only with all of those.
const COPIES: usize = 2;

/// What any rank was asked for: all of them learn it here, or none.
///
/// # Errors
/// When a peer is gone.
pub(crate) fn agree(replica: &Replica<'_>) -> Result<Seen, WorkerError> {
    let torch = replica.torch();
    let seen = {
        let _entered = replica.entering("all-reduce of the evaluation");
        let like = replica.held().model.running_statistics();
        // Not that of the step in flight, which may be one to go on with.
        let mut tally = Tally::new(0, like.kind(), like.device()).map_err(&torch)?;
        tally.wish(replica.wishes()).map_err(&torch)?;
        tally
            .all_reduce(replica.group())
            .map_err(replica.collective())?;
        tally.read().map_err(torch)?
    };
    share_unsent(replica)?;
    Ok(seen)
}

/// Has other ranks hold the scores that no coordinator has taken: with a rank that dies before the next coordinator is there,
/// and after the others have trained on, they could not be made again.
fn share_unsent(replica: &Replica<'_>) -> Result<(), WorkerError> {
    let (rank, world_size) = (replica.rank(), replica.world_size());
    if world_size == 1 {
        return Ok(());
    }
    let link = replica.link();
    let unsent = {
        let _entered = replica.entering("all-gather of unsent scores");
        gather(replica, link.unsent(replica.step()))?
    };
    for before in 1..=COPIES.min(world_size - 1) {
        let of = (rank + world_size - before) % world_size;
        if !link.hold(&unsent[of])? {
            let reason = format!("rank {of}'s unsent scores cannot be read");
            let step = replica.step();
            return Err(WorkerError::Transfer { step, reason });
        }
    }
    link.reach("scores-held");
    Ok(())
}

/// Every rank's bytes, by rank.
fn gather(replica: &Replica<'_>, mut bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, WorkerError> {
    let (group, torch) = (replica.group(), replica.torch());
    let all = |own: Tensor| -> Result<Tensor, WorkerError> {
        let own = own.f_to_device(group.device()).map_err(&torch)?;
        let all = group.all_gather(&own).and_then(Gathering::wait);
        let all = all.map_err(replica.collective())?;
        all.f_to_device(Device::Cpu).map_err(&torch)
    };
    let lengths = all(Tensor::from_slice(&[bytes.len() as i64]))?;
    let lengths: Vec<i64> = lengths
        .f_reshape(-1)
        .and_then(Vec::try_from)
        .map_err(&torch)?;
    let longest = lengths
        .iter()
        .max()
        .map_or(0, |&longest| longest.max(0) as usize);
    if longest == 0 {
        return Ok(vec![Vec::new(); lengths.len()]);
    }
    bytes.resize(longest, 0);
    let gathered = all(Tensor::from_slice(&bytes))?;
    let gathered: Vec<u8> = gathered
        .f_reshape(-1)
        .and_then(Vec::try_from)
        .map_err(torch)?;
    let parts = gathered.chunks(longest).zip(lengths);
    Ok(parts
        .map(|(part, length)| part[..length.clamp(0, longest as i64) as usize].to_vec())
        .collect())
}
