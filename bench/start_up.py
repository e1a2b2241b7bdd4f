"""From the command to the first finished step of a small model on two ranks, against torchrun."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib import BINARIES, ROOT, Result, command_line, draw_scenes, interleaved, missing

COORDINATOR, WORKER = BINARIES / "coordinator", BINARIES / "worker"
PEER = ROOT / "bench" / "peers" / "peer_ddp.py"
REFERENCE = ROOT / "bench" / "reference" / "hgat_fc_reference.py"
CONFIG = ROOT / "deploy" / "experiments" / "demo.toml"
TIMEOUT_SECONDS = 120


def needs():
    return missing(COORDINATOR, WORKER, REFERENCE, CONFIG)


def run(quick):
    peer_command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(PEER),
        "--backbone", "resnet18", "--size", "64", "--batch", "16", "--hidden", "512", "--group-channels", "256",
        "--class-channels", "128", "--warmup", "0", "--steps", "1",
    ]  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_scenes(data, 128, TIMEOUT_SECONDS)
        runs, whole = 0, []

        def ours():
            nonlocal runs
            runs += 1
            run_dir = Path(folder) / f"run-{runs}"
            command = [
                COORDINATOR, "start", "--workers", "2", "--device", "cpu", "--data", data, "--config", CONFIG,
                "--run-dir", run_dir, "--set", "train.threads=1", "--stop-after", "1", "--quiet",
            ]  # fmt: skip
            began = time.time()
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
            whole.append(time.time() - began)
            return first_step_at(run_dir) - began

        def peer():
            began = time.perf_counter()
            with subprocess.Popen(peer_command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                for line in process.stdout:
                    if line.startswith("first_step"):
                        seconds = time.perf_counter() - began
                        break
                else:
                    raise RuntimeError(f"the peer ended without a step: {' '.join(peer_command)}")
                process.stdout.read()
            return seconds

        ours_seconds, peer_seconds = interleaved(ours, peer, repeats=2 if quick else 5)

    return Result(
        name="start_up",
        measured="from the command to the first finished step, resnet18 at 64 pixels, two ranks of one thread; "
        "ours reads and checks pictures, the peer has synthetic tensors",
        unit="s",
        higher_is_better=False,
        ours=ours_seconds,
        peer=peer_seconds,
        peer_name="torchrun, DistributedDataParallel on Gloo",
        peer_command=command_line(peer_command),
        details={
            "ours, to the end of the process, with checkpoint and report": {
                "value": round(statistics.median(whole), 3),
                "unit": "s",
                "repeats": whole,
            }
        },
    )


def first_step_at(run_dir):
    """When the coordinator was told of the first finished step, in seconds of the wall clock."""
    with (run_dir / "events.jsonl").open() as lines:
        began = json.loads(next(lines))["began_unix_ms"]
        event = next(event for line in lines if (event := json.loads(line)).get("event") == "progress")
    return (began + event["at_ms"]) / 1000
