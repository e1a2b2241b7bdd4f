"""The heads alone, forward and backward on one thread, against the reference's loop over classes in PyTorch."""

import os
import subprocess
import sys

from lib import BINARIES, KEPT_MEMORY, ROOT, Result, command_line, interleaved, missing, row_with_ratios

PROBE = BINARIES / "heads"
PEER = ROOT / "bench" / "peers" / "peer_heads.py"
REFERENCE = ROOT / "bench" / "reference" / "hgat_fc_reference.py"
BATCH, FEATURES, SIDE = 4, 2048, 7
TIMEOUT_SECONDS = 300
KEPT_ROW = "the same, glibc told to keep freed memory as ours does"


def needs():
    return missing(PROBE, REFERENCE)


def run(quick):
    steps = str(4 if quick else 10)
    peer_command = [sys.executable, str(PEER), str(BATCH), steps]

    def measured(command, environment=None):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=os.environ | (environment or {})
        )
        return float(done.stdout.split()[1])

    ours, peer, kept = interleaved(
        lambda: measured([PROBE, str(BATCH), steps]),
        lambda: measured(peer_command),
        lambda: measured(peer_command, KEPT_MEMORY),
        repeats=2 if quick else 5,
    )
    ratios = [theirs / own for own, theirs in zip(ours, kept, strict=True)]
    return Result(
        name="heads",
        measured=f"the heads of HGAT_FC (COCO's 12 groups of 80 classes, 512 and 256 channels, graph attention) from "
        f"features [{BATCH}, {FEATURES}, {SIDE}, {SIDE}] through loss and back, one thread, float32, median of {steps}",
        unit="s",
        higher_is_better=False,
        ours=ours,
        peer=peer,
        peer_name="the reference in PyTorch, a loop over classes",
        peer_command=command_line(peer_command),
        peer_commands={
            "the reference in PyTorch, a loop over classes": command_line(peer_command),
            KEPT_ROW: command_line(peer_command, KEPT_MEMORY),
        },
        details={KEPT_ROW: row_with_ratios(kept, ratios, "s")},
    )
