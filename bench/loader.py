"""Training pictures from JPEG to uint8 pixels on one thread, against torchvision, OpenCV, DALI and libjpeg-turbo alone."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import BINARIES, ROOT, Result

PROBE = BINARIES / "loader"
PEER = ROOT / "bench" / "peers" / "peer_loader.py"
FLOOR = ROOT / "bench" / "peers" / "floor.c"
SIZE = 448
# Peers suffer from page faults of large temporaries: with these, glibc gives them memory that it keeps.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
INSTALL = {
    "dali": "to compare with it: python -m pip install nvidia-dali-cuda130==2.4.0",
    "opencv": "to compare with it: make setup-tests",
}


def needs():
    if not PROBE.exists():
        return f"{PROBE} is not built"
    root = os.environ.get("HGAT_TEST_COCO")
    if not root:
        return "HGAT_TEST_COCO names no COCO folder with real pictures (docs/performance.md)"
    if not list((Path(root) / "annotations").glob("instances_train2017.json")):
        return f"{root} has no annotations/instances_train2017.json"
    return None


def run(quick):
    return measure("train", ["pil", "tensor", "opencv", "dali"], quick, name="loader")


def probe(*arguments):
    """What our probe answers."""
    command = [PROBE, os.environ["HGAT_TEST_COCO"], *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Peer:
    """A process that measures one pipeline whenever it is asked to."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)

    def measure(self, name):
        """Images per CPU second; or why not."""
        print(name, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split(maxsplit=1)
        if len(answer) != 2 or answer[0] != name:
            raise RuntimeError(f"the peer ended at {name}: {answer}")
        return answer[1].strip() if answer[1].startswith("skipped") else float(answer[1])


def peer_command(kind, seconds):
    return [
        sys.executable, str(PEER), os.environ["HGAT_TEST_COCO"], "--split", f"{kind}2017", "--size", str(SIZE),
        "--seconds", str(seconds), "--serve",
    ]  # fmt: skip


class Floor:
    """libjpeg-turbo decoding our crops and nothing else; or why it cannot be measured."""

    def __init__(self, folder, kind):
        self.binary, self.boxes, self.missing = folder / "floor", folder / "boxes", None
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        command = [compiler, "-O2", "-o", str(self.binary), str(FLOOR), "-ljpeg"]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.missing = "skipped: no libjpeg-turbo with headers (Debian: libjpeg62-turbo-dev)"
            return
        boxes = [PROBE, os.environ["HGAT_TEST_COCO"], kind, str(SIZE), "boxes"]
        self.boxes.write_bytes(subprocess.run(boxes, check=True, capture_output=True).stdout)
        # Without SIMD it is no floor: then it does not get slower when told not to use it.
        if self.measure() < 1.5 * self.measure(JSIMD_FORCENONE="1"):
            self.missing = "skipped: this libjpeg-turbo was built without SIMD"

    def measure(self, **environment):
        if self.missing:
            return self.missing
        command = [self.binary, self.boxes, "1"]
        answer = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
        return float(answer.stdout)


def measure(kind, peers, quick, name):
    """Ours and every peer in turn, several times."""
    repeats, seconds = (1, 0.4) if quick else (5, 0.7)
    command = peer_command(kind, seconds)
    ours, stages, rows = [], [], {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        floor = Floor(folder, kind)
        settings = {"as shipped": {}} if quick else {"as shipped": {}, "malloc thresholds raised": KEPT_MEMORY}
        # Each in a process of its own: what one frees makes the next one faster.
        processes = {
            (peer, how): stack.enter_context(Peer(command, environment))
            for peer in peers
            for how, environment in settings.items()
        }
        # One round that does not count.
        for repeat in range(repeats + 1):
            answer = probe(kind, str(SIZE), "1")
            found = {f"{peer}, {how}": process.measure(peer) for (peer, how), process in processes.items()}
            found["libjpeg-turbo, rows and columns of the crop alone"] = floor.measure()
            if repeat > 0:
                ours.append(answer["images_per_cpu_second"])
                stages.append(answer["microseconds"])
                for row, value in found.items():
                    rows.setdefault(row, []).append(value)

    details = {}
    for row, values in rows.items():
        if isinstance(values[0], str):
            hint = next((hint for peer, hint in INSTALL.items() if row.startswith(peer)), "")
            details[row] = {"value": None, "unit": f"{values[0]} {hint}".strip()}
            continue
        ratios = sorted(o / v for o, v in zip(ours, values, strict=True))
        details[row] = {
            "value": statistics.median(values),
            "unit": "images per CPU second",
            "ratio": statistics.median(ratios),
            "spread": [ratios[0], ratios[-1]],
        }
    for stage in stages[0]:
        value = statistics.median(each[stage] for each in stages)
        details[f"ours, {stage}"] = {"value": value, "unit": "microseconds an image"}
    transform = "random resized crop of 0.4 to 1 of the area and flip" if kind == "train" else "squashed"
    headline = f"{peers[0]}, as shipped"
    return Result(
        name=name,
        measured=f"{kind} pictures of a COCO folder, {transform}, to {SIZE} x {SIZE}; ours and OpenCV to uint8, "
        "torchvision to float32; one thread, files in memory, all CPU time of the process",
        unit="images per CPU second",
        higher_is_better=True,
        ours=ours,
        peer=rows[headline],
        peer_name="torchvision on PIL pictures",
        peer_command=f"echo {peers[0]} | " + " ".join(command).replace(os.environ["HGAT_TEST_COCO"], "$HGAT_TEST_COCO"),
        details=details,
    )
