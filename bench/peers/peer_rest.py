"""Peer: what a rank of PyTorch's holds before its first step: the model of the demo and its optimizer, on the CPU.

peer_rest.py
prints `at rest` and waits until its input ends.
"""

import functools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import hgat_fc_reference as reference  # noqa: E402


def main():
    torch.set_num_threads(1)
    # Made once and not replaced: what was freed would count as the peer's memory.
    reference.Head = functools.partial(reference.Head, hidden=512)
    model = reference.HGAT_FC("resnet18", gc=256, cc=128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    # The state that the first step would make, which ours has from the start.
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)
        }  # fmt: skip
    print("at rest", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
