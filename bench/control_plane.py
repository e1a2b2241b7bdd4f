"""The control plane against the number of workers: memory, processor time, and latencies of one coordinator."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib import BINARIES, Result

# Run by its name alone: it takes minutes, and most of what two cores have.
BY_NAME_ONLY = True

COORDINATOR, SIMULATED = BINARIES / "coordinator", BINARIES / "simulated_workers"
QUERIES = BINARIES / "status_queries"
COUNTS, QUICK_COUNTS = (100, 1000, 3000, 10_000), (100, 1000)
# Generation changes for each number of workers, each by one broken connection.
CHANGES, QUICK_CHANGES = 5, 3
# Status queries in the steady state: 20 a second, while processor time is counted.
QUERY_COUNT, QUERY_PAUSE_MS = 300, 50
PATIENCE_SECONDS = 240
# The least that passes for a JPEG file: nobody looks into it.
JPEG = bytes.fromhex("ffd8 ffc0000b080010001001011100 ffda0008010100003f0000 ffd9")
TICKS = os.sysconf("SC_CLK_TCK")


def needs():
    missing = [path for path in (COORDINATOR, SIMULATED, QUERIES) if not path.exists()]
    return f"{missing[0]} is not built" if missing else None


def run(quick):
    counts, changes = (QUICK_COUNTS, QUICK_CHANGES) if quick else (COUNTS, CHANGES)
    rows = []
    for workers in counts:
        rows.append(measure(workers, changes))
        print(f"  {json.dumps(rows[-1])}", file=sys.stderr)
    print(curves(rows))
    most = rows[-1]
    return Result(
        name="control_plane",
        measured=f"one generation change of {most['workers']} workers: from the break of one worker's connection until "
        "the last of the others has been sent into the next generation; simulated workers, each with a gRPC stream over "
        "a TCP connection of its own from another process on the same cores, heartbeats at 1 Hz; the table in details "
        "has the rest",
        unit="s",
        higher_is_better=False,
        ours=most["changes"]["generation_s"],
        details={"by number of workers": rows},
    )


def measure(workers, changes):
    """One run of so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        data, run_dir = Path(folder) / "data", Path(folder) / "run"
        draw(data, 2 * workers)
        settings = [
            "run.launch=external", f"train.global_batch={2 * workers}", "train.micro_batch=2", "train.epochs=1000",
            "run.evaluate_every_epochs=1000", "run.snapshot_every_epochs=1000", f"fault.crashes={changes + 1}",
        ]  # fmt: skip
        command = [COORDINATOR, "start", "--workers", str(workers), "--data", data, "--run-dir", run_dir, "--quiet"]
        for setting in settings:
            command += ["--set", setting]
        with open(Path(folder) / "stderr", "w+") as log:
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log) as coordinator:
                try:
                    address = address_of(run_dir, coordinator)
                    row = {"workers": workers, "alone_mib": memory(coordinator.pid)["VmRSS"]}
                    row |= with_workers(workers, changes, address, run_dir, coordinator.pid)
                except Exception as problem:
                    log.seek(0)
                    raise RuntimeError(f"with {workers} workers; the coordinator said: {log.read()[-2000:]}") from problem
                finally:
                    coordinator.send_signal(signal.SIGKILL)
        return row


def with_workers(workers, changes, address, run_dir, pid):
    command = [SIMULATED, address, str(workers)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes) as simulated:
        try:
            joined = answer_of(simulated)
            until_training(address)
            steady = in_steady_state(address, run_dir, pid, simulated.pid)
            told = []
            for _ in range(changes):
                began, spent = time.monotonic(), processor(pid)
                simulated.stdin.write("break\n")
                told.append(answer_of(simulated))
                until_training(address)
                told[-1]["training_seconds"] = time.monotonic() - began
                told[-1]["coordinator_seconds"] = processor(pid) - spent
            peak = memory(pid)["VmHWM"]
        finally:
            simulated.kill()
    return {
        "connections": joined["connections"],
        "all_connected_s": round(joined["connected_seconds"], 3),
        "all_in_first_generation_s": round(joined["generation_seconds"], 3),
        **steady,
        "peak_mib": peak,
        "changes": {
            "regroup_s": [round(change["regroup_seconds"], 4) for change in told],
            "generation_s": [round(change["generation_seconds"], 4) for change in told],
            # Processor time, which does not depend on who else is at work.
            "coordinator_cpu_s": [round(change["coordinator_seconds"], 3) for change in told],
            "training_s": [round(change["training_seconds"], 4) for change in told],
        },
    }


def in_steady_state(address, run_dir, pid, simulated_pid):
    """All that is measured while nothing happens but heartbeats and status queries."""
    # The burst of joining is over once a whole second of heartbeats has been handled after it.
    time.sleep(3)
    events = run_dir / "events.jsonl"
    before, spent, written = time.monotonic(), [processor(p) for p in (pid, simulated_pid)], events.stat().st_size
    everyone = machine_busy()
    queries = ask(address, QUERY_COUNT, QUERY_PAUSE_MS)
    seconds = time.monotonic() - before
    spent = [processor(p) - was for p, was in zip((pid, simulated_pid), spent, strict=True)]
    others = machine_busy() - everyone - sum(spent)
    latencies = sorted(1000 * latency for latency in queries["seconds"])
    return {
        "window_s": round(seconds, 1),
        "coordinator_mib": memory(pid)["VmRSS"],
        "coordinator_cpu": round(spent[0] / seconds, 4),
        "simulating_mib": memory(simulated_pid)["VmRSS"],
        "simulating_cpu": round(spent[1] / seconds, 4),
        # Whoever else was at work on this machine, the status queries included.
        "others_cpu": round(others / seconds, 3),
        "status_ms": {
            "median": round(statistics.median(latencies), 3),
            "p95": round(latencies[int(0.95 * len(latencies))], 3),
            "worst": round(latencies[-1], 3),
            "queries": len(latencies),
        },
        "status_bytes": queries["largest_bytes"],
        "events_kib_per_s": round((events.stat().st_size - written) / 1024 / seconds, 1),
    }


def ask(address, count, pause_ms):
    command = [QUERIES, address, str(count), str(pause_ms)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def until_training(address):
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (phase := ask(address, 1, 1)["phase"]) != "PHASE_TRAINING":
        if time.monotonic() > give_up:
            raise RuntimeError(f"the run does not train after {PATIENCE_SECONDS} s: {phase}")
        time.sleep(0.01)


def answer_of(simulated):
    line = simulated.stdout.readline()
    if not line:
        raise RuntimeError(f"the simulated workers ended with {simulated.wait(PATIENCE_SECONDS)}")
    return json.loads(line)


def address_of(run_dir, coordinator):
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and coordinator.poll() is None:
        try:
            return json.loads((run_dir / "coordinator.json").read_text())["address"]
        except FileNotFoundError:
            time.sleep(0.02)
    raise RuntimeError("the coordinator does not serve")


def draw(data, samples):
    """A data set in COCO's layout, of pictures that nobody decodes: so many, and two to validate on."""
    (data / "annotations").mkdir(parents=True)
    for split, count in (("train", samples), ("val", 2)):
        folder = data / f"{split}2017"
        folder.mkdir()
        for n in range(count):
            (folder / f"{n}.jpg").write_bytes(JPEG)
        images = [{"id": n + 1, "file_name": f"{n}.jpg"} for n in range(count)]
        labels = [{"id": n + 1, "image_id": n + 1, "category_id": 1 + n % 2} for n in range(count)]
        classes = [{"id": n, "name": f"class {n}", "supercategory": "thing"} for n in (1, 2)]
        text = json.dumps({"images": images, "annotations": labels, "categories": classes})
        (data / "annotations" / f"instances_{split}2017.json").write_text(text)


def memory(pid):
    """VmRSS (resident now) and VmHWM (at most so far) in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {key: round(int(fields[key].split()[0]) / 1024, 1) for key in ("VmRSS", "VmHWM")}


def processor(pid):
    """Seconds of processor time so far, in the kernel and out of it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_busy():
    """Seconds of processor time of everything on this machine so far."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / TICKS


def curves(rows):
    """The rows as Markdown, as docs/reliability.md shows them."""
    lines = [
        "| workers | coordinator's memory | at most | processors | simulating process | status: median, p95 | "
        "all told to regroup | all sent into the next generation | events.jsonl |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        status, changes = row["status_ms"], row["changes"]
        lines.append(
            f"| {row['workers']:,} | {row['coordinator_mib']:.0f} MiB | {row['peak_mib']:.0f} MiB | "
            f"{row['coordinator_cpu']:.3f} | {row['simulating_mib']:.0f} MiB, {row['simulating_cpu']:.3f} | "
            f"{status['median']:.2f}, {status['p95']:.2f} ms | {1000 * statistics.median(changes['regroup_s']):.0f} ms | "
            f"{1000 * statistics.median(changes['generation_s']):.0f} ms | {row['events_kib_per_s']:.0f} KiB/s |"
        )
    return "\n".join(lines)
