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
    # Its state comes with the first step. Ours is there, in pages that nobody has touched.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    print("at rest", flush=True)
    sys.stdin.read()
    del optimizer


if __name__ == "__main__":
    main()
