"""Training pictures from JPEG to uint8 pixels on one thread, against torchvision, OpenCV, DALI and libjpeg-turbo alone."""

import atexit
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import BINARIES, KEPT_MEMORY, ROOT, Result, command_line, draw_scenes, missing, row_with_ratios

PROBE = BINARIES / "loader"
PEER = ROOT / "bench" / "peers" / "peer_loader.py"
FLOOR = ROOT / "bench" / "peers" / "floor.c"
# Our loader reads both, whichever split is measured.
ANNOTATIONS = ("annotations/instances_train2017.json", "annotations/instances_val2017.json")
SIZE = 448
MEMORY = {"as shipped": {}, "malloc thresholds raised": KEPT_MEMORY}
FLOOR_ROW = "libjpeg-turbo, rows and columns of the crop alone"
INSTALL = {
    "dali": "to compare with it: python -m pip install nvidia-dali-cuda130==2.4.0",
    "opencv": "to compare with it: make setup-tests",
}


def needs():
    if reason := missing(PROBE, BINARIES / "worker"):
        return reason
    root = os.environ.get("HGAT_TEST_COCO") or draw_some()
    absent = [file for file in ANNOTATIONS if not (Path(root) / file).is_file()]
    return f"HGAT_TEST_COCO={root} has no {' and no '.join(absent)} (bench/README.md)" if absent else None


def draw_some():
    """Drawn pictures of COCO's size for whoever has no real ones; whatever is measured of them says so."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    draw_scenes(Path(folder.name), 240, 120, "--scale", "1", val=120)
    os.environ |= {"HGAT_TEST_COCO": folder.name, "HGAT_BENCH_DRAWN": "1"}
    print("HGAT_TEST_COCO is unset: pictures are drawn (bench/README.md)", file=sys.stderr)
    return folder.name


def pictures():
    """What pictures these are, for `measured`."""
    drawn = os.environ.get("HGAT_BENCH_DRAWN")
    return "drawn pictures of 640 x 480 (HGAT_TEST_COCO was not set)" if drawn else "pictures of a COCO folder"


def run(quick):
    return measure("train", ["pil", "tensor", "tensor_uint8", "opencv", "dali"], quick, name="loader")


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


def peer_line(peer, kind, seconds, environment):
    """How a peer is run alone: it answers for every name that it reads."""
    return f"echo {peer} | " + command_line(peer_command(kind, seconds), environment)


def floor_line(kind):
    """How the floor is run alone, from its compilation on."""
    source = FLOOR.relative_to(ROOT)
    boxes = command_line(["target/release/loader", os.environ["HGAT_TEST_COCO"], kind, str(SIZE), "boxes"])
    return f"cc -O2 -o floor {source} -ljpeg && {boxes} > boxes && ./floor boxes 1"


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
        # Without SIMD it is no floor: then it does not get slower when told not to use it. With it, it takes half the time.
        runs = [(self.measure(), self.measure(JSIMD_FORCENONE="1")) for _ in range(3)]
        if max(fast for fast, _ in runs) < 1.2 * max(slow for _, slow in runs):
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
        settings = {"as shipped": {}} if quick else MEMORY
        lines = {
            f"{peer}, {how}": peer_line(peer, kind, seconds, environment)
            for peer in peers
            for how, environment in settings.items()
        }
        lines[FLOOR_ROW] = floor_line(kind)
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
            found[FLOOR_ROW] = floor.measure()
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
        ratios = [o / v for o, v in zip(ours, values, strict=True)]
        details[row] = row_with_ratios(values, ratios, "images per CPU second")
    for stage in stages[0]:
        values = [each[stage] for each in stages]
        details[f"ours, {stage}"] = {"value": statistics.median(values), "unit": "microseconds an image", "repeats": values}
    transform = "random resized crop of 0.4 to 1 of the area and flip" if kind == "train" else "squashed"
    headline = f"{peers[0]}, as shipped"
    return Result(
        name=name,
        measured=f"{kind} {pictures()}, {transform}, to {SIZE} x {SIZE}; ours{', OpenCV and DALI' if kind == 'train' else ' and OpenCV'} to uint8, "
        "torchvision, where nothing else is said, to float32 and normalised; one thread, files in memory, all CPU time of the process",
        unit="images per CPU second",
        higher_is_better=True,
        ours=ours,
        peer=rows[headline],
        peer_name="torchvision on PIL pictures",
        peer_command=lines[headline],
        # Of those that were measured: how to get the others is in their rows.
        peer_commands={row: line for row, line in lines.items() if details[row]["value"] is not None},
        details=details,
    )
