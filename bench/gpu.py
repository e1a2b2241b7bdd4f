"""A training step on CUDA devices, bfloat16 at 448 pixels, against DistributedDataParallel, eager and compiled.

Not run yet on a GPU. With HGAT_GPU_DRY=1 all of it runs on the CPU at toy sizes, which tests this script and says
nothing about speed.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import train_step
from lib import Result, command_line, draw_scenes, first_line

BY_NAME_ONLY = True
PEER_SECONDS = 240
# When whoever runs this ends it, in seconds of the wall clock: compiling is slow, and what is measured is to be written.
UNTIL = float(os.environ.get("HGAT_GPU_UNTIL", "inf"))
DRY = os.environ.get("HGAT_GPU_DRY", "") not in ("", "0")
BACKBONE, SIZE, BATCH, STEPS, REPEATS = ("resnet18", 64, 4, 4, 1) if DRY else ("resnet101", 448, 64, 20, 3)


def devices():
    """Those that a process may use, whatever else the machine has."""
    if DRY:
        return 2
    import torch

    return torch.cuda.device_count()


def needs():
    if not devices():
        return "there is no CUDA device here that torch may use"
    return train_step.needs()


def run(quick):
    ranks, repeats = devices(), 1 if quick else REPEATS
    device = "cpu" if DRY else "cuda"
    settings = (
        f"model.backbone={BACKBONE}", f"data.size={SIZE}", f"train.micro_batch={BATCH}", f"train.global_batch={BATCH * ranks}",
        "train.precision=bf16", "data.prefetch=8",
    )  # fmt: skip
    forms = {"eager": (), "compiled": ("--compile",)}
    ours, peers, problem = [], {form: [] for form in forms if form == "eager" or not DRY}, None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        # All steps are of one epoch: the peer evaluates nothing either.
        steps = train_step.WARMUP + STEPS + 1
        draw_scenes(data, BATCH * ranks * steps, train_step.TIMEOUT_SECONDS, "--scale", "1")
        for repeat in range(repeats):
            run_dir = Path(folder) / f"run-{repeat}"
            ours.append(train_step.our_step(data, run_dir, ranks, STEPS, settings, device=device))
            peers["eager"].append(peer(ranks, device, forms["eager"], PEER_SECONDS))
        if "compiled" in peers:
            # Once and last: the ratio is of the other, and compiling may take all the time that is left.
            try:
                left = min(PEER_SECONDS, UNTIL - time.time() - 15)
                if left <= 0:
                    raise TimeoutError("no time was left for it")
                peers["compiled"].append(peer(ranks, device, forms["compiled"], left))
            except (OSError, subprocess.SubprocessError, ValueError) as failed:
                # What compiling lacks here, time, a C compiler or Triton, says nothing about the others.
                problem = f"{failed}"
    lines = {f"peer, {form}": command_line(peer_command(ranks, device, forms[form])) for form in peers}
    return Result(
        name="gpu_dry" if DRY else "gpu",
        measured=f"a training step of {BACKBONE} at {SIZE} pixels, {ranks} ranks, batch {BATCH} a rank, bfloat16; ours with "
        f"its input pipeline, the peer with synthetic tensors on the device; {first_line(['nvidia-smi', '-L'])}",
        unit="s",
        higher_is_better=False,
        ours=ours,
        peer=peers["eager"],
        peer_name="DistributedDataParallel, AMP, channels_last, fused SGD",
        peer_command=lines["peer, eager"],
        peer_commands=lines,
        details={
            **{f"peer, {form}": row(values, ours, problem) for form, values in peers.items()},
            "images a second, ours": {"value": round(ranks * BATCH / statistics.median(ours), 1), "unit": "images/s"},
        },
    )


def row(seconds, ours, problem):
    """A peer's seconds, and how many times ours they are."""
    if not seconds:
        return {"value": None, "unit": "s", "problem": problem}
    value = statistics.median(seconds)
    return {"value": value, "unit": "s", "repeats": seconds, "ratio": round(value / statistics.median(ours), 4)}


def peer_command(ranks, device, flags):
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone", str(train_step.PEER),
        "--backbone", BACKBONE, "--size", str(SIZE), "--batch", str(BATCH), "--warmup", "5", "--steps", str(STEPS),
        "--device", device, "--bf16", "--channels-last", *flags,
    ]  # fmt: skip


def peer(ranks, device, flags, timeout):
    command = peer_command(ranks, device, flags)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # It ends its ranks, which are in sessions of their own; killed, it could not.
            process.terminate()
            process.communicate(timeout=10)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, err)
    words = out.split()
    return float(words[words.index("step_seconds") + 1])
