"""A training step on the CPU, two ranks of one thread, against DistributedDataParallel in its better memory format."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import BINARIES, ROOT, Result, draw_scenes, missing

COORDINATOR, WORKER = BINARIES / "coordinator", BINARIES / "worker"
PEER = ROOT / "bench" / "peers" / "peer_ddp.py"
REFERENCE = ROOT / "bench" / "reference" / "hgat_fc_reference.py"
RANKS, BATCH, SIZE, WARMUP, STEPS = 2, 4, 224, 2, 8
TIMEOUT_SECONDS = 300
# Peers suffer from page faults of large temporaries: with these, glibc gives them memory that it keeps, as ours does.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def needs():
    return missing(COORDINATOR, WORKER, REFERENCE)


def run(quick):
    return compare("train_step", quick, peer_flags=(), settings=())


def compare(name, quick, peer_flags, settings):
    """Ours, and the peer in both memory formats, in turn; the peer counts with the better of the two in each round."""
    repeats, steps = (1, 3) if quick else (3, STEPS)
    formats = {"contiguous": (), "channels_last": ("--channels-last",)}
    ours, alone, kept, peers = [], [], [], {layout: [] for layout in formats}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_scenes(data, 240, TIMEOUT_SECONDS)
        for repeat in range(repeats):
            ours.append(our_step(data, Path(folder) / f"run-{repeat}", RANKS, steps, settings))
            for layout, flags in formats.items():
                peers[layout].append(peer_step(steps, (*flags, *peer_flags)))
            if quick:
                continue  # what else docs tell of is not part of the ratio
            kept.append(peer_step(steps, (*formats["channels_last"], *peer_flags), KEPT_MEMORY))
            alone.append(our_step(data, Path(folder) / f"alone-{repeat}", 1, steps, settings))
    better = [min(values) for values in zip(*peers.values(), strict=True)]
    rounded = lambda values: {"median": round(statistics.median(values), 4), "unit": "s"}  # noqa: E731
    beside = {"peer, channels_last, glibc told to keep freed memory": kept, "floor: ours in one process, nothing to communicate": alone}
    return Result(
        name=name,
        measured=f"a training step of HGAT_FC on resnet50 at {SIZE} pixels, {RANKS} ranks of one thread, batch {BATCH} a "
        f"rank, SGD, median of {steps} steps; ours reads, decodes and augments pictures and clips gradients in that "
        "time, the peer has synthetic tensors in memory",
        unit="s",
        higher_is_better=False,
        ours=ours,
        peer=better,
        peer_name="DistributedDataParallel on Gloo, the better of both memory formats",
        peer_command=" ".join(peer_command(steps, (*formats["channels_last"], *peer_flags))),
        details={
            **{f"peer, {layout}": rounded(values) for layout, values in peers.items()},
            **{what: rounded(values) for what, values in beside.items() if values},
        },
    )


def our_step(data, run_dir, ranks, steps, settings, prefix=()):
    """Median seconds from commit to commit, as the coordinator recorded them."""
    command = [
        *prefix, COORDINATOR, "start", "--workers", str(ranks), "--device", "cpu", "--data", data, "--run-dir", run_dir, "--quiet",
        "--stop-after", str(WARMUP + steps),
    ]  # fmt: skip
    common = (
        "model.backbone=resnet50", f"data.size={SIZE}", "data.transform=random_resized_crop", "train.threads=1",
        f"train.micro_batch={BATCH}", f"train.global_batch={BATCH * ranks}", "train.learning_rate_trunk=0.01",
        "train.learning_rate_head=0.1", "fault.timeout=60", "run.keep_checkpoints=1",
    )  # fmt: skip
    for setting in (*common, *settings):
        command += ["--set", setting]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    committed = {}  # step: milliseconds since the run's beginning
    for line in (run_dir / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("event") == "progress":
            committed.setdefault(event["report"]["step"], event["at_ms"])
    timed = [committed[step] - committed[step - 1] for step in range(WARMUP, WARMUP + steps)]
    return statistics.median(timed) / 1e3


def peer_command(steps, flags):
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), "--standalone", str(PEER),
        "--backbone", "resnet50", "--size", str(SIZE), "--batch", str(BATCH), "--warmup", str(WARMUP),
        "--steps", str(steps), *flags,
    ]  # fmt: skip


def peer_step(steps, flags, environment=None):
    done = subprocess.run(
        peer_command(steps, flags), check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    words = done.stdout.split()
    return float(words[words.index("step_seconds") + 1])
