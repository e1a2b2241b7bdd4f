"""A training step on the CPU, two ranks of one thread, against DistributedDataParallel in its better memory format."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import BINARIES, KEPT_MEMORY, ROOT, Result, command_line, draw_scenes, missing

COORDINATOR, WORKER = BINARIES / "coordinator", BINARIES / "worker"
PEER = ROOT / "bench" / "peers" / "peer_ddp.py"
REFERENCE = ROOT / "bench" / "reference" / "hgat_fc_reference.py"
RANKS, BATCH, SIZE, WARMUP, STEPS = 2, 4, 224, 2, 7
# Where a step takes longer than so many seconds, fewer are timed and the peer is tried in no other ways: the whole
# bench has a limit.
SLOW_SECONDS, SLOW_STEPS = 2.0, 3
TIMEOUT_SECONDS = 300
FORMATS = {"contiguous": (), "channels_last": ("--channels-last",)}
# What else could make the peer quicker, one in each round: its flags and variables, and whether in both formats or in
# the one that was the better until then. Few steps and no second time: `make bench` has a limit.
EXTRA_STEPS = 3
EXTRAS = (
    ("glibc told to keep freed memory", (), KEPT_MEMORY, True),
    ("fused SGD", ("--fused",), {}, False),
    ("fused SGD, bucket views, static graph, kept memory", ("--fused", "--views"), KEPT_MEMORY, False),
)


def needs():
    return missing(COORDINATOR, WORKER, REFERENCE)


def run(quick):
    return compare("train_step", quick, peer_flags=(), settings=())


def compare(name, quick, peer_flags, settings):
    """Ours, and the peer in both memory formats, in turn; the peer counts with the better of the two in each round."""
    repeats, steps = (1, 3) if quick else (len(EXTRAS), STEPS)
    most = steps
    ours, alone, peers, beside, lines = [], [], {layout: [] for layout in FORMATS}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_scenes(data, 240, TIMEOUT_SECONDS)
        for repeat in range(repeats):
            ours.append(our_step(data, Path(folder) / f"run-{repeat}", RANKS, steps, settings))
            slow = ours[0] > SLOW_SECONDS
            steps = min(steps, SLOW_STEPS) if slow else steps
            for layout, flags in FORMATS.items():
                how = steps, (*flags, *peer_flags), {}
                peers[layout].append(peer_step(*how))
                lines[f"peer, {layout}"] = peer_line(*how)
            if quick:
                continue  # what else docs tell of is not part of the ratio
            what, more, environment, both = EXTRAS[repeat]
            for layout in () if slow else FORMATS if both else [better_of(peers)[2]]:
                how = EXTRA_STEPS, (*FORMATS[layout], *more, *peer_flags), environment
                seconds = peer_step(*how)
                row = f"peer, {layout}, {what}"
                # Beside the step of ours that was taken with it.
                beside[row] = row_of([seconds]) | {"steps": EXTRA_STEPS, "ratio": round(seconds / ours[-1], 4)}
                lines[row] = peer_line(*how)
            if repeat > 0:  # twice do for what is in no ratio
                alone.append(our_step(data, Path(folder) / f"alone-{repeat}", 1, steps, settings))
    counted, better, headline = better_of(peers)
    details = {f"peer, {layout}": row_of(values) for layout, values in peers.items()} | beside
    if alone:
        details["floor: ours in one process, nothing to communicate"] = row_of(alone)
    timed = steps if steps == most else f"{steps} to {most}"
    return Result(
        name=name,
        measured=f"a training step {'in bf16 autocast' if settings else 'in float32'} of HGAT_FC on resnet50 at {SIZE} pixels, {RANKS} ranks of one thread, batch {BATCH} a "
        f"rank, SGD, median of {timed} steps; ours reads, decodes and augments pictures and clips gradients in that time, "
        "the peer has synthetic tensors in memory",
        unit="s",
        higher_is_better=False,
        ours=ours,
        peer=better,
        peer_name="DistributedDataParallel on Gloo, the better of both memory formats",
        peer_command=lines[f"peer, {headline}"],
        peer_commands=lines,
        details=details | {"the better format as shipped, by round": {"value": counted, "unit": "memory format"}},
    )


def better_of(peers):
    """By round which format is the quicker, and its seconds; and the one that is so most often, whose command is stored."""
    rounds = [dict(zip(peers, values, strict=True)) for values in zip(*peers.values(), strict=True)]
    counted = [min(seconds, key=seconds.get) for seconds in rounds]
    return counted, [min(seconds.values()) for seconds in rounds], max(peers, key=counted.count)


def row_of(values):
    return {"median": round(statistics.median(values), 4), "unit": "s", "repeats": values}


def our_step(data, run_dir, ranks, steps, settings, prefix=(), device="cpu"):
    """Median seconds from commit to commit, as the coordinator recorded them."""
    command = [
        *prefix, COORDINATOR, "start", "--workers", str(ranks), "--device", device, "--data", data, "--run-dir", run_dir, "--quiet",
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


def peer_line(steps, flags, environment):
    return command_line(peer_command(steps, flags), environment)


def peer_step(steps, flags, environment):
    done = subprocess.run(
        peer_command(steps, flags), check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        env=os.environ | environment,
    )  # fmt: skip
    words = done.stdout.split()
    return float(words[words.index("step_seconds") + 1])
