"""A data set of COCO 2014's size: reading its annotations beside pycocotools, and all else that grows with it."""

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib import BINARIES, ROOT, Result, command_line, missing

# Run by its name alone: it takes some minutes, and 1 GB of disk.
BY_NAME_ONLY = True

COORDINATOR, WORKER, PROBE = BINARIES / "coordinator", BINARIES / "worker", BINARIES / "full_size"
PEER = ROOT / "bench" / "peers" / "peer_annotations.py"
CONFIG = ROOT / "deploy" / "experiments" / "demo.toml"
TRAIN, VAL = 82_783, 40_504
RANKS, EPOCHS = 8, 20
# Of the run that is started on it.
STEPS = 10
TIMEOUT_SECONDS = 300


def needs():
    if importlib.util.find_spec("pycocotools") is None:
        return "pycocotools is not installed: make setup-tests"
    return missing(COORDINATOR, WORKER, PROBE, CONFIG)


def run(quick):
    repeats = 2 if quick else 3
    with tempfile.TemporaryDirectory(dir=os.environ.get("HGAT_BENCH_DIR")) as folder:
        folder = Path(folder)
        data, small = folder / "full", folder / "small"
        making = time.perf_counter()
        text = answer_text([WORKER, "scenes", "--to", data, "--like-coco2014"])
        making = time.perf_counter() - making
        print(text, file=sys.stderr)
        answer_text([WORKER, "scenes", "--to", small, "--train", "128", "--val", "16"])
        files = [data / "annotations" / f"instances_{split}2014.json" for split in ("train", "val")]
        sizes = [round(file.stat().st_size / 1e6, 1) for file in files]

        ways = {
            "ours": [PROBE, "open", data],
            "ours, one core": [PROBE, "open", data],
            "pycocotools": [sys.executable, PEER, "pycocotools", *files],
            "json.load": [sys.executable, PEER, "json", *files],
        }
        reading = {way: [] for way in ways}
        others = {"check": [], "plan": [], "ledger": [], "start": [], "start, 144 pictures": []}
        # The first round does not count: it fills the page cache.
        for repeat in range(1 + repeats):
            for way, command in ways.items():
                alone = {min(os.sched_getaffinity(0))} if way == "ours, one core" else None
                reading[way].append(answer(command, cores=alone))
            others["check"].append(
                answer([PROBE, "check", data, str(len(os.sched_getaffinity(0))), folder / f"images-{repeat}.cache"])
            )
            others["plan"].append(answer([PROBE, "plan", str(TRAIN), str(RANKS)]))
            others["ledger"].append(ledger(folder / f"ledger-{repeat}"))
            others["start"].append(start(data, folder / f"run-{repeat}"))
            others["start, 144 pictures"].append(start(small, folder / f"run-small-{repeat}"))
    for answers in (*reading.values(), *others.values()):
        del answers[0]
    same = {json.dumps([one["pictures"], one["labels"]]) for answers in reading.values() for one in answers}
    if len(same) != 1:
        raise AssertionError(f"they do not read the same: {same}")
    if others["check"][0]["warning"] or others["start"][0]["warnings"]:
        raise AssertionError(f"there are warnings: {others['check'][0]['warning']} {others['start'][0]['warnings']}")
    return Result(
        name="full_size",
        measured=f"both annotation files of a data set of COCO 2014's shape ({sizes[0]} and {sizes[1]} MB) to an index in "
        "memory, in a process of its own, its start not counted, the files in the page cache; ours reads both at once, on two "
        "cores; the details have everything else that grows with the data set",
        unit="s",
        higher_is_better=False,
        ours=[one["seconds"] for one in reading["ours"]],
        peer=[one["seconds"] for one in reading["pycocotools"]],
        peer_name="pycocotools, COCO(file) for both",
        peer_command=peer_command("pycocotools"),
        peer_commands={"reading, pycocotools": peer_command("pycocotools"), "reading, json.load": peer_command("json")},
        details=details(making, sizes, reading, others),
    )


def peer_command(way):
    """DATA is what `worker scenes --to DATA --like-coco2014` has made: here it is in another folder every time."""
    files = [f"DATA/annotations/instances_{split}2014.json" for split in ("train", "val")]
    return command_line([sys.executable, PEER, way, *files])


def details(making, sizes, reading, others):
    rows = {"making the set": {"value": round(making, 2), "unit": "s"}}
    rows |= {
        f"annotation file, {split}": {"value": size, "unit": "MB"}
        for split, size in zip(("training", "validation"), sizes, strict=True)
    }

    def add(text, answers, key, unit):
        values = [one[key] for one in answers]
        if all(value is not None for value in values):
            ends = [float(f"{value:.4g}") for value in (min(values), max(values))]
            median = float(f"{statistics.median(values):.4g}")
            rows[text] = {"value": median, "unit": unit, "from_to": ends, "repeats": values}

    for way, answers in reading.items():
        add(f"reading, {way}", answers, "seconds", "s")
        add(f"reading, {way}: processor time", answers, "cpu_seconds", "s")
        add(f"reading, {way}: peak memory of the process", answers, "peak_mib", "MiB")
    add("index as workers are sent it", reading["ours"], "index_bytes", "B")
    add("index to bytes", reading["ours"], "encode_seconds", "s")
    both = f"{TRAIN + VAL:,} pictures"
    add(f"check of {both}, files in the page cache", others["check"], "check_seconds", "s")
    add(f"check of {both}, remembered", others["check"], "again_seconds", "s")
    add("pictures that both splits have", others["check"], "shared_seconds", "s")
    add("an epoch's permutation", others["plan"], "permutation_seconds", "s")
    add(f"an epoch's plan for {RANKS} ranks, permutation included", others["plan"], "plan_seconds", "s")
    add("steps of an epoch", others["plan"], "steps", "1")
    epochs = f"{EPOCHS} epochs of {RANKS} ranks"
    add(f"record of {epochs}: writing", others["ledger"], "write_seconds", "s")
    add(f"record of {epochs}: processor time of it", others["ledger"], "write_cpu_seconds", "s")
    add(f"record of {epochs}: size", others["ledger"], "bytes", "B")
    add(f"record of {epochs}: coordinator ledger --verify", others["ledger"], "verify_seconds", "s")
    add(f"record of {epochs}: peak memory of that", others["ledger"], "verify_mib", "MiB")
    for name, of in (("start", "the whole set"), ("start, 144 pictures", "144 pictures")):
        add(f"start on {of}: until the coordinator serves", others[name], "serving_s", "s")
        add(f"start on {of}: until both workers stand by", others[name], "ready_s", "s")
        add(f"start on {of}: until the first step is done", others[name], "first_step_s", "s")
        add(f"start on {of}: peak memory of the coordinator", others[name], "coordinator_mib", "MiB")
        add(f"start on {of}: peak memory of a worker", others[name], "worker_mib", "MiB")
    return rows


def answer_text(command, cores=None):
    pinned = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, preexec_fn=pinned)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def answer(command, cores=None):
    return json.loads(answer_text(command, cores).splitlines()[-1])


def ledger(run_dir):
    """The record of a whole run, written by the coordinator's own store and verified by its own command."""
    row = answer([PROBE, "ledger", run_dir, str(TRAIN), str(RANKS), str(EPOCHS)])
    began = time.perf_counter()
    command = [COORDINATOR, "ledger", "--run-dir", run_dir, "--verify"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as verifying:
        text = verifying.stdout.read()
        _, status, used = os.wait4(verifying.pid, 0)
        verifying.returncode = os.waitstatus_to_exitcode(status)
    if verifying.returncode != 0 or "holds: every sample" not in text:
        raise RuntimeError(f"the ledger does not hold: {text}")
    return row | {"verify_seconds": time.perf_counter() - began, "verify_mib": used.ru_maxrss / 1024}


def start(data, run_dir):
    """A run of two workers, from the command until it has done its first steps."""
    command = [
        COORDINATOR, "start", "--workers", "2", "--device", "cpu", "--data", data, "--config", CONFIG, "--run-dir", run_dir,
        "--set", "train.threads=1", "--stop-after", str(STEPS), "--quiet",
    ]  # fmt: skip
    row = {"serving_s": None, "coordinator_mib": 0, "worker_mib": 0}
    began, began_unix = time.perf_counter(), time.time()
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as coordinator:
            try:
                while coordinator.poll() is None:
                    now = time.perf_counter() - began
                    if now > TIMEOUT_SECONDS:
                        raise RuntimeError(f"the run has not ended after {TIMEOUT_SECONDS} s")
                    if row["serving_s"] is None and (run_dir / "coordinator.json").exists():
                        row["serving_s"] = now
                    row["coordinator_mib"] = max(row["coordinator_mib"], peak_of(coordinator.pid))
                    for worker in workers_of(coordinator.pid):
                        row["worker_mib"] = max(row["worker_mib"], peak_of(worker))
                    time.sleep(0.005)
            finally:
                if coordinator.poll() is None:
                    coordinator.send_signal(signal.SIGTERM)
        said.seek(0)
        text = said.read()
    if coordinator.returncode != 0:
        raise RuntimeError(f"the run ended with {coordinator.returncode}: {text[-2000:]}")
    row |= {"warnings": [line for line in text.splitlines() if line.startswith("warning")]}
    # The record's own times: its lines reach the file a second late.
    lines = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    offset = lines[0]["began_unix_ms"] / 1000 - began_unix
    times = {event: [line["at_ms"] / 1000 + offset for line in lines if line.get("event") == event] for event in ("standby", "progress")}
    return row | {"ready_s": times["standby"][1], "first_step_s": times["progress"][0]}


def workers_of(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def peak_of(pid):
    """VmHWM in MiB; 0 of a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM")), 0)
