"""Whether an all-reduce gives exact sums here, by PyTorch's own process group: NCCL on CUDA devices, Gloo on the CPU.

torchrun --nproc-per-node 8 peer_sum.py --device cuda
prints how many sums were exact; exit code 1 and the first that was not, otherwise. It is the library that our workers
load (that of the torch wheel) and none of our code: where it fails, driver, links or NCCL are at fault.
"""

import argparse
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

KINDS = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int32, torch.int64,
)  # fmt: skip
# From one element to buckets of gradients: libraries choose another way to sum for each.
COUNTS = (1, 7, 1_000, 70_001, 8 << 20)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=60))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for kind in KINDS:
        for count in COUNTS:
            # Small whole numbers: every sum of some of them is exact in every kind, so the order does not matter.
            place = torch.arange(count) % 5
            own = (place + rank).to(kind).to(device)
            dist.all_reduce(own)
            expected = (place * ranks + ranks * (ranks - 1) // 2).to(kind)
            if not torch.equal(own.cpu(), expected):
                sys.exit(f"rank {rank} of {ranks}: the sum of {count} elements of {kind} is not exact")
    if rank == 0:
        print(f"{len(KINDS) * len(COUNTS)} sums over {ranks} ranks by {dist.get_backend()} are exact")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
