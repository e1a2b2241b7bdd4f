//! How a rank without the state takes it from its peers: the levelling of one that is a step behind, and everything for
//! a newcomer. No checkpoint is read, and those who hold the state wait no longer than the transfer.
//!
//! The receiving rank fills a second copy, compares its hash with the holders', and only then puts it in place: whoever
//! dies meanwhile, what it held before stays valid.

use std::collections::BTreeSet;

use nccl_rs::{ProcessGroup, Work};
use tch::{Device, TchError, Tensor};

use super::held::Held;
use crate::error::WorkerError;

/// Who holds the state that a generation begins with.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Ranks that hold it for certain.
    pub(crate) holders: BTreeSet<usize>,
    /// Whether the others have most likely made the same, so that comparing hashes comes before sending: first values
    /// come of one seed, or of one file.
    pub(crate) made_alike: bool,
}

/// Gives every rank of `group` the state after `step` steps, which `source` names. Tensors come from all holders in turn,
/// so that several send at once.
///
/// # Errors
/// When a peer is gone, the device fails, or the state that came is not the one that was sent.
pub(crate) fn share(
    group: &ProcessGroup,
    held: &mut Held,
    source: &Source,
    step: u64,
    reach: &dyn Fn(&str),
) -> Result<(), WorkerError> {
    let holders = &source.holders;
    if holders.len() == group.world_size() {
        return Ok(());
    }
    if source.made_alike && all_equal(&hashes(group, held.tensors(), step)?) {
        held.steps = Some(step);
        return Ok(());
    }
    let torch = |source| WorkerError::Torch { step, source };
    let collective = |source| WorkerError::Collective { step, source };
    let receives = !holders.contains(&group.rank());
    let senders: Vec<usize> = holders.iter().copied().collect();
    if senders.is_empty() {
        let reason = "no rank holds the state".to_owned();
        return Err(WorkerError::Checkpoint { step, reason });
    }
    let own: Vec<Tensor> = held.tensors().map(Tensor::detach).collect();
    let shared: Vec<Tensor> = if receives {
        let copies = own.iter().map(Tensor::f_empty_like);
        copies.collect::<Result<_, TchError>>().map_err(torch)?
    } else {
        own.iter().map(Tensor::shallow_clone).collect()
    };
    reach("levelling");
    let sent: Vec<Work> = shared
        .iter()
        .zip(senders.iter().cycle())
        .map(|(tensor, &sender)| group.broadcast(tensor, sender))
        .collect::<Result<_, _>>()
        .map_err(collective)?;
    sent.into_iter()
        .try_for_each(Work::wait)
        .map_err(collective)?;

    reach("levelled");
    let hashes = hashes(group, shared.iter(), step)?;
    let (prevailing, agree) = prevailing(&hashes, &senders);
    if hashes[group.rank()] != prevailing {
        if receives && agree < senders.len() {
            // What came is of several states; whose differs, ends.
            let reason = "the ranks that hold the state do not agree on it".to_owned();
            return Err(WorkerError::Regroup(reason));
        }
        let reason = format!(
            "the state that rank {} holds is not to the bit that of {agree} of {} ranks that had it: look at its device",
            group.rank(),
            senders.len()
        );
        return Err(WorkerError::Transfer { step, reason });
    }
    reach("state-compared");
    if receives {
        tch::no_grad(|| {
            own.iter()
                .zip(&shared)
                .try_for_each(|(own, copy)| own.shallow_clone().f_copy_(copy))
        })
        .map_err(torch)?;
    }
    held.steps = Some(step);
    Ok(())
}

/// The hash that most of `senders`, which are some, hold, and how many do; of equally many the lowest rank's.
fn prevailing(hashes: &[u128], senders: &[usize]) -> (u128, usize) {
    let counted = |rank: usize| {
        let agree = senders
            .iter()
            .filter(|&&other| hashes[other] == hashes[rank]);
        (hashes[rank], agree.count())
    };
    let others = senders[1..].iter().map(|&rank| counted(rank));
    others.fold(counted(senders[0]), |most, next| {
        if next.1 > most.1 { next } else { most }
    })
}

/// [`digest`] of what each rank holds, by rank.
fn hashes<'a>(
    group: &ProcessGroup,
    tensors: impl Iterator<Item = &'a Tensor>,
    step: u64,
) -> Result<Vec<u128>, WorkerError> {
    let torch = |source| WorkerError::Torch { step, source };
    let mine = digest(tensors, step).map_err(torch)?;
    let words = Tensor::f_from_slice(&[mine as i64, (mine >> 64) as i64])
        .and_then(|words| words.f_to_device(group.device()))
        .map_err(torch)?;
    let all = group
        .all_gather(&words)
        .and_then(nccl_rs::Gathering::wait)
        .map_err(|source| WorkerError::Collective { step, source })?;
    let words: Vec<i64> = all
        .f_to_device(Device::Cpu)
        .and_then(|all| all.f_reshape(-1))
        .and_then(Vec::try_from)
        .map_err(torch)?;
    let pairs = words.chunks_exact(2);
    Ok(pairs
        .map(|pair| u128::from(pair[1] as u64) << 64 | u128::from(pair[0] as u64))
        .collect())
}

fn all_equal(hashes: &[u128]) -> bool {
    hashes.windows(2).all(|pair| pair[0] == pair[1])
}

/// A hash of everything a step changes, after `step` steps: equal on all ranks, or something is wrong.
///
/// # Errors
/// When the device fails.
pub(crate) fn digest<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    step: u64,
) -> Result<u128, TchError> {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&step.to_le_bytes());
    // One for all: fresh pages for each would take longer than hashing.
    let mut bytes = Vec::new();
    for tensor in tensors {
        let values = tensor
            .f_detach()?
            .f_to_device(Device::Cpu)?
            .f_contiguous()?;
        bytes.resize(values.numel() * values.kind().elt_size_in_bytes(), 0);
        values.f_copy_data_u8(&mut bytes, values.numel())?;
        hasher.update(&bytes);
    }
    Ok(hasher.digest128())
}

#[cfg(test)]
mod tests {
    use super::prevailing;

    #[test]
    fn what_most_holders_have_prevails_and_of_equally_many_the_lowest_rank() {
        // Rank 2 takes from the others, and has no say.
        assert_eq!(prevailing(&[9, 5, 9, 5], &[0, 1, 3]), (5, 2));
        assert_eq!(prevailing(&[5, 5, 7, 9], &[0, 1, 3]), (5, 2));
        assert_eq!(prevailing(&[9, 5, 5], &[0, 1]), (9, 1));
        assert_eq!(prevailing(&[9, 5], &[1]), (5, 1));
    }
}
