"""The heads alone, forward and backward on one thread, against the reference's loop over classes in PyTorch."""

import subprocess
import sys

from lib import BINARIES, ROOT, Result, command_line, interleaved, missing

PROBE = BINARIES / "heads"
PEER = ROOT / "bench" / "peers" / "peer_heads.py"
REFERENCE = ROOT / "bench" / "reference" / "hgat_fc_reference.py"
BATCH, FEATURES, SIDE = 4, 2048, 7
TIMEOUT_SECONDS = 300


def needs():
    return missing(PROBE, REFERENCE)


def run(quick):
    steps = str(4 if quick else 10)
    peer_command = [sys.executable, str(PEER), str(BATCH), steps]

    def measured(command):
        return lambda: float(
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS).stdout.split()[1]
        )

    ours, peer = interleaved(measured([PROBE, str(BATCH), steps]), measured(peer_command), 2 if quick else 5)
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
    )
