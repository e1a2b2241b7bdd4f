"""Peer: torchrun's answer to a worker that is killed. The same model and batch as ours, synthetic tensors.

torchrun --nproc-per-node 3 --max-restarts 3 peer_recovery.py
Each rank prints `pid RANK INCARNATION PID` when it is up; rank 0 prints `step INCARNATION STEP UNIX_SECONDS` after each
step. Whoever measures kills a rank and looks for the first step of the next incarnation. The script keeps no
checkpoint, so every incarnation begins again at step 0: what torchrun itself does.
"""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from hgat_fc_reference import HGAT_FC  # noqa: E402

MICRO_BATCH, MICRO_BATCHES, SIZE = 4, 6, 64


def say(text):
    """In one piece: several ranks write to the same pipe."""
    os.write(1, f"{text}\n".encode())


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    incarnation = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    say(f"pid {rank} {incarnation} {os.getpid()}")
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(HGAT_FC("resnet18", gc=256, cc=128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    loss = nn.MultiLabelSoftMarginLoss()
    images = torch.randn(MICRO_BATCH, 3, SIZE, SIZE)
    labels = (torch.rand(MICRO_BATCH, 80) < 0.04).float()
    for step in range(100_000):
        optimizer.zero_grad(set_to_none=True)
        mine = MICRO_BATCHES // world
        for micro_batch in range(mine):
            if micro_batch + 1 < mine:
                with model.no_sync():
                    loss(model(images), labels).backward()
            else:
                loss(model(images), labels).backward()
        optimizer.step()
        if rank == 0:
            say(f"step {incarnation} {step} {time.time():.4f}")


if __name__ == "__main__":
    main()
