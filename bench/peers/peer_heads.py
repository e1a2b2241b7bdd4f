"""Peer: the reference's heads in PyTorch, forward and backward on one thread.

peer_heads.py BATCH STEPS
prints `step_seconds X`, the median.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from hgat_fc_reference import HGAT_FC  # noqa: E402


def main(batch, steps):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads = HGAT_FC("resnet50").heads
    features = torch.randn(batch, 2048, 7, 7, requires_grad=True)
    labels = (torch.rand(batch, 80) < 0.04).float()
    loss = nn.MultiLabelSoftMarginLoss()
    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        heads.zero_grad(set_to_none=False)
        loss(heads(features), labels).backward()
        seconds.append(time.perf_counter() - began)
    print(f"step_seconds {statistics.median(seconds[2:]):.6f}")


main(int(sys.argv[1]), int(sys.argv[2]))
