"""Memory of a worker process at rest: model and optimizer there, no step done, against the Python peer."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from lib import BINARIES, ROOT, Result, command_line, draw_scenes, missing

COORDINATOR, WORKER = BINARIES / "coordinator", BINARIES / "worker"
PEER = ROOT / "bench" / "peers" / "peer_rest.py"
REFERENCE = ROOT / "bench" / "reference" / "hgat_fc_reference.py"
CONFIG = ROOT / "deploy" / "experiments" / "demo.toml"
TIMEOUT_SECONDS = 120


def needs():
    return missing(COORDINATOR, WORKER, REFERENCE, CONFIG)


def run(quick):
    command = [sys.executable, str(PEER)]
    ours, peer, parts = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_scenes(data, 128, TIMEOUT_SECONDS)
        for repeat in range(2 if quick else 5):
            for name, measure in (("ours", lambda: our_rest(data, Path(folder) / f"run-{repeat}")), ("peer", lambda: peer_rest(command))):
                memory = measure()
                (ours if name == "ours" else peer).append(memory["Rss"])
                parts.setdefault(name, []).append(memory)
    return Result(
        name="memory",
        measured="resident memory of one worker process that has made the model of the demo (16.6 million parameters), "
        "its optimizer state and its loader, and waits for the second rank; the peer has imported torch, made model "
        "and optimizer, and waits",
        unit="MiB",
        higher_is_better=False,
        ours=ours,
        peer=peer,
        peer_name="a Python process of PyTorch",
        peer_command=command_line(command),
        details={
            f"{name}, {what}": {
                "value": parts[name][-1][key],
                "unit": "MiB",
                "repeats": [part[key] for part in parts[name]],
            }
            for name in parts
            for key, what in (("Anonymous", "of that not backed by a file"), ("Pss", "files shared with others counted in part"))
        },
    )


def our_rest(data, run_dir):
    """A coordinator that waits for two workers is given one."""
    start = [
        COORDINATOR, "start", "--workers", "2", "--device", "cpu", "--data", data, "--config", CONFIG, "--run-dir", run_dir,
        "--set", "run.launch=external", "--set", "train.threads=1", "--quiet",
    ]  # fmt: skip
    with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as coordinator:
        try:
            address = until(lambda: address_of(run_dir))
            join = [WORKER, "join", "--coordinator", address, "--worker-id", "worker-0"]
            with subprocess.Popen(join, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
                try:
                    until(lambda: stands_by(run_dir))
                    return memory_of(worker.pid)
                finally:
                    worker.kill()
        finally:
            coordinator.kill()


def address_of(run_dir):
    file = run_dir / "coordinator.json"
    return json.loads(file.read_text())["address"] if file.exists() else None


def stands_by(run_dir):
    events = run_dir / "events.jsonl"
    return events.exists() and '"event":"standby"' in events.read_text()


def until(found):
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < give_up:
        if value := found():
            return value
        time.sleep(0.05)
    raise RuntimeError(f"not at rest within {TIMEOUT_SECONDS} s")


def peer_rest(command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(TIMEOUT_SECONDS, process.kill)
        watchdog.start()
        try:
            if not process.stdout.readline().startswith("at rest"):
                raise RuntimeError(f"the peer did not come to rest: {' '.join(command)}")
            return memory_of(process.pid)
        finally:
            watchdog.cancel()
            process.kill()


def memory_of(pid):
    """MiB by kind."""
    kinds = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        kind, value = line.split(":")
        kinds[kind] = round(int(value.split()[0]) / 1024, 1)
    return kinds
