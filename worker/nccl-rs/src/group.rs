//! Process groups and their collectives.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::ffi::{self, Adapter, Failure};
use crate::store::Store;
use crate::sys;
use crate::tensor::{self, Use};
use crate::work::{Gathering, Work};

/// How to form a Gloo group.
#[derive(Clone, Copy, Debug)]
pub struct GlooOptions {
    /// How long a collective, or the wait for peers at creation, may take.
    pub timeout: Duration,
    /// The address of this machine at which its peers reach it.
    pub bind: IpAddr,
    /// Whether reducers sum through memory that the ranks share, where all of them run on one machine and let each
    /// other do so. Where not, they use the group's sockets. All ranks say the same.
    ///
    /// With three ranks or more the two differ in the order of additions, so a run that must repeat to the bit
    /// allows it only where it will always be possible.
    pub shared_memory: bool,
    /// Whether reducers send float32 gradients as bfloat16: half the bytes, and sums rounded to 8 bits of mantissa
    /// at every rank that adds to them. All ranks say the same. Nothing is sent through shared memory.
    pub compress_gradients: bool,
}

/// How to form an NCCL group.
#[derive(Clone, Copy, Debug)]
pub struct NcclOptions {
    /// How long a collective, or the wait for peers at creation, may take.
    pub timeout: Duration,
    /// This rank's CUDA device. Every rank needs its own.
    pub device: usize,
    /// As [`GlooOptions::compress_gradients`].
    pub compress_gradients: bool,
}

/// How an all-reduce combines the ranks' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// Their product.
    Product,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
}

impl ReduceOp {
    /// The numbers that `csrc/group.hpp` reads.
    fn code(self) -> i32 {
        match self {
            Self::Sum => 0,
            Self::Product => 1,
            Self::Min => 2,
            Self::Max => 3,
        }
    }
}

/// This process's membership in a group of ranks.
///
/// All ranks must start the same collectives in the same order. A failure of any of them ends the
/// group on this rank at once and closes its connections, so that the failure reaches every other
/// rank without waiting for a timeout. Dropping the group does the same: it never waits for a peer.
/// So drop it only when every rank is known to be done with it, or to end it.
#[derive(Debug)]
pub struct ProcessGroup {
    shared: Arc<Shared>,
}

/// What works and reducers need of their group, and keep alive.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) handle: ffi::Group,
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    pub(crate) device: Device,
}

impl ProcessGroup {
    /// Forms a group over TCP for tensors on the CPU. Blocks until every rank is there and
    /// connected.
    ///
    /// # Errors
    /// [`Error::Rendezvous`] when the store fails or a peer does not arrive within the timeout;
    /// [`Error::Creation`] when the connections cannot be made; a refusal for impossible arguments.
    pub fn gloo(
        store: Arc<dyn Store>,
        rank: usize,
        world_size: usize,
        options: GlooOptions,
    ) -> Result<Self> {
        check_arguments(rank, world_size, options.timeout)?;
        let host = options.bind.to_string();
        Self::form("gloo", store, rank, world_size, Device::Cpu, |adapter| {
            let mut group = ffi::Group::gloo(
                adapter,
                rank,
                world_size,
                options.timeout,
                &host,
                options.shared_memory,
            )?;
            if options.compress_gradients {
                group.compress();
            }
            Ok(group)
        })
    }

    /// Forms a group over NCCL for tensors on a CUDA device. Blocks until every rank is there and
    /// the communicators are built, so that no later step needs the store.
    ///
    /// # Errors
    /// As for [`ProcessGroup::gloo`]; [`Error::NcclUnavailable`] without CUDA.
    pub fn nccl(
        store: Arc<dyn Store>,
        rank: usize,
        world_size: usize,
        options: NcclOptions,
    ) -> Result<Self> {
        check_arguments(rank, world_size, options.timeout)?;
        if let Some(reason) = crate::cuda::nccl_unavailable_reason() {
            return Err(Error::NcclUnavailable { reason });
        }
        let devices = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        if options.device >= devices {
            return Err(Error::Creation {
                backend: "nccl",
                rank,
                world_size,
                message: format!("there is no cuda device {}, only {devices}", options.device),
            });
        }
        Self::form(
            "nccl",
            store,
            rank,
            world_size,
            Device::Cuda(options.device),
            |adapter| {
                let mut group =
                    ffi::Group::nccl(adapter, rank, world_size, options.timeout, options.device)?;
                if options.compress_gradients {
                    group.compress();
                }
                Ok(group)
            },
        )
    }

    fn form(
        backend: &'static str,
        store: Arc<dyn Store>,
        rank: usize,
        world_size: usize,
        device: Device,
        create: impl FnOnce(&Arc<Adapter>) -> std::result::Result<ffi::Group, Failure>,
    ) -> Result<Self> {
        let adapter = Adapter::new(store);
        match create(&adapter) {
            Ok(handle) => Ok(Self {
                shared: Arc::new(Shared {
                    handle,
                    rank,
                    world_size,
                    device,
                }),
            }),
            Err(failure) => Err(match adapter.take_error() {
                Some(source) => Error::Rendezvous {
                    backend,
                    rank,
                    world_size,
                    source,
                },
                None => Error::Creation {
                    backend,
                    rank,
                    world_size,
                    message: failure.message,
                },
            }),
        }
    }

    /// This process's number in the group, from 0.
    pub fn rank(&self) -> usize {
        self.shared.rank
    }

    /// How many ranks the group has.
    pub fn world_size(&self) -> usize {
        self.shared.world_size
    }

    /// Where the group's tensors live: the CPU for Gloo, a CUDA device for NCCL.
    pub fn device(&self) -> Device {
        self.shared.device
    }

    /// Combines `tensor` over all ranks, in place. All ranks give the same shape and kind.
    ///
    /// Do not touch the tensor until [`Work::wait`] has returned.
    ///
    /// # Errors
    /// A refusal of the tensor by name, or [`Error::Aborted`] when the group is over.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Work> {
        self.check(tensor, "all_reduce", "the tensor")?;
        self.launch(
            "all_reduce",
            self.shared.handle.all_reduce(tensor, op.code()),
        )
    }

    /// Overwrites `tensor` on every rank with that of rank `root`. All ranks give the same shape
    /// and kind.
    ///
    /// # Errors
    /// As for [`ProcessGroup::all_reduce`]; [`Error::NoSuchRank`] for `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work> {
        if root >= self.shared.world_size {
            return Err(Error::NoSuchRank {
                rank: root,
                world_size: self.shared.world_size,
            });
        }
        self.check(tensor, "broadcast", "the tensor")?;
        self.launch("broadcast", self.shared.handle.broadcast(tensor, root))
    }

    /// Collects every rank's `input`; all have the same shape and kind.
    ///
    /// # Errors
    /// As for [`ProcessGroup::all_reduce`].
    pub fn all_gather(&self, input: &Tensor) -> Result<Gathering> {
        self.check(input, "all_gather", "the input")?;
        let ranks = i64::try_from(self.shared.world_size).unwrap_or(i64::MAX);
        let shape: Vec<i64> = [ranks].into_iter().chain(input.size()).collect();
        let torch = |error: tch::TchError| Error::Torch {
            operation: "all_gather",
            message: error.to_string(),
        };
        let output = Tensor::f_empty(&shape, (input.kind(), self.shared.device)).map_err(torch)?;
        // One row a rank for c10d, which wants the first dimension to be the ranks times theirs.
        let rows = output.f_view([-1]).map_err(torch)?;
        let row = input.f_view([-1]).map_err(torch)?;
        let started = self.shared.handle.all_gather(&rows, &row);
        Ok(Gathering::new(self.launch("all_gather", started)?, output))
    }

    /// Ends when every rank has started it.
    ///
    /// # Errors
    /// [`Error::Aborted`] when the group is over.
    pub fn barrier(&self) -> Result<Work> {
        self.launch("barrier", self.shared.handle.barrier())
    }

    /// Ends the group on this rank: whoever waits for a collective of it, on any thread, gets an
    /// error at once, and so do the peers. From any thread; again does nothing.
    ///
    /// # Errors
    /// When the backend refuses, which leaves the process fit for little but its end.
    pub fn abort(&self) -> Result<()> {
        let shared = &self.shared;
        shared
            .handle
            .abort("by this process")
            .map_err(|failure| shared.error("abort", failure))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn check(&self, tensor: &Tensor, operation: &'static str, what: &str) -> Result<()> {
        tensor::check(
            tensor,
            &Use {
                operation,
                what,
                device: self.shared.device,
            },
        )
    }

    fn launch(
        &self,
        operation: &'static str,
        started: std::result::Result<ffi::Work, Failure>,
    ) -> Result<Work> {
        match started {
            Ok(handle) => Ok(Work::new(handle, operation, Arc::clone(&self.shared))),
            Err(failure) => Err(self.shared.error(operation, failure)),
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // A reducer or work may keep the memory alive, but not the membership. A failure to abort
        // has nobody to tell; what is left is tried again when the handle is freed.
        let _ = self.shared.handle.abort("its process group was dropped");
    }
}

impl Shared {
    /// What a failure of the shim means to the caller.
    pub(crate) fn error(&self, operation: &'static str, failure: Failure) -> Error {
        let (rank, world_size) = (self.rank, self.world_size);
        let message = failure.message;
        match failure.code {
            sys::CODE_ABORTED => Error::Aborted {
                operation,
                rank,
                world_size,
                reason: message,
            },
            sys::CODE_OUT_OF_MEMORY => Error::OutOfMemory { operation, message },
            sys::CODE_MISSING_GRADIENT => Error::ParameterWithoutGradient {
                index: usize::try_from(failure.detail).unwrap_or(usize::MAX),
            },
            sys::CODE_UNFINISHED => Error::UnfinishedReduction { rank, world_size },
            sys::CODE_TORCH => Error::Torch { operation, message },
            _ => Error::Collective {
                operation,
                rank,
                world_size,
                message,
            },
        }
    }
}

fn check_arguments(rank: usize, world_size: usize, timeout: Duration) -> Result<()> {
    // c10d counts ranks in a C int.
    if rank >= world_size || i32::try_from(world_size).is_err() {
        return Err(Error::NoSuchRank { rank, world_size });
    }
    if timeout.as_millis() == 0 {
        return Err(Error::InvalidTimeout { timeout });
    }
    Ok(())
}

/// Bytes of one element, for bucket sizes.
pub(crate) fn element_size(kind: Kind) -> usize {
    kind.elt_size_in_bytes()
}
