"""A model of step time against ranks and bandwidth, checked on rate-limited loopback links, and what it says of H100s."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import train_step
from lib import BINARIES, Result, draw_scenes, missing

# Run by its name alone: it measures a model, and is no comparison.
BY_NAME_ONLY = True

COORDINATOR, WORKER = BINARIES / "coordinator", BINARIES / "worker"
NAMESPACE = "hgat-bench-scaling"
# Ranks, and the Gbit/s that all of them have together.
LINKS = ((2, 1), (2, 2), (2, 4), (2, 8), (3, 2), (3, 4), (4, 2), (4, 4))
STEPS = 6
# What is assumed of H100s; nothing here was measured on one.
# Operations a second reached on convolutions in bfloat16: ResNets are bound by memory, so far below the peak of 989e12.
H100_REACHED = (60e12, 120e12)
# Three passes' worth of multiplications and additions of resnet101 at 448 pixels (4 x 7.8e9 multiply-adds forward), 64 pictures.
H100_OPERATIONS = 3 * 2 * 4 * 7.8e9 * 64
# Bytes a second each way and GPU: NCCL's ring within a node of 8, and over 400 Gbit/s between nodes.
H100_NVLINK, H100_FABRIC = 360e9, 45e9
# resnet101 with COCO's heads: 42.5 and 23 million parameters, sent as float32.
H100_GRADIENT_BYTES = 65.5e6 * 4
# Of a step's time, the backward pass; of the gradients, the bucket that is ready last.
BACKWARD_SHARE, LAST_BUCKET_SHARE = 2 / 3, 1 / 8


def needs():
    if absent := missing(COORDINATOR, WORKER):
        return absent
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        return "a link is slowed in a network namespace, which needs root, ip and tc"
    return None


def ring_seconds(ranks, gradient_bytes, bandwidth):
    """A ring all-reduce: every rank sends 2 (N - 1) / N of the bytes, `bandwidth` bytes/s each way (Patarasu and Yuan
    2009, "Bandwidth optimal all-reduce algorithms")."""
    return 2 * (ranks - 1) / ranks * gradient_bytes / bandwidth if ranks > 1 else 0.0


def step_seconds(compute, communication):
    """What of the communication fits behind the backward pass is free, except for the last bucket, which has nothing left
    to hide behind."""
    hidden = min(communication * (1 - LAST_BUCKET_SHARE), compute * BACKWARD_SHARE)
    return compute + communication - hidden


def run(quick):
    links = LINKS[1:3] if quick else LINKS
    rows, ours, predicted, unlimited = {}, [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw_scenes(data, 240, train_step.TIMEOUT_SECONDS)
        over_sockets = ("train.shared_memory=false",)
        for ranks, rate in links:
            # Unlimited, sockets cost processor time: that is in what this model takes for compute, of so many ranks on
            # the cores that are here.
            if ranks not in unlimited:
                fast = Path(folder) / f"fast-{ranks}"
                unlimited[ranks] = train_step.our_step(data, fast, ranks, STEPS, over_sockets)
                gradients = gradient_bytes(fast)
                rows[f"not limited, {ranks} ranks"] = {"value": round(unlimited[ranks], 3), "unit": "s"}
            with limited(rate):
                run_dir = Path(folder) / f"{ranks}-at-{rate}"
                inside = ("ip", "netns", "exec", NAMESPACE)
                seconds = train_step.our_step(data, run_dir, ranks, STEPS, over_sockets, prefix=inside)
            # All ranks send through the one loopback device.
            communication = ring_seconds(ranks, gradients, rate * 1e9 / 8 / ranks)
            said = step_seconds(unlimited[ranks], communication)
            ours.append(seconds)
            predicted.append(said)
            row = f"{rate} Gbit/s loopback, {ranks} ranks: measured, predicted"
            rows[row] = {"value": [round(seconds, 3), round(said, 3)], "unit": "s"}
    for ranks in (8, 64):
        communication = ring_seconds(ranks, H100_GRADIENT_BYTES, H100_NVLINK if ranks <= 8 else H100_FABRIC)
        for reached in H100_REACHED:
            compute = H100_OPERATIONS / reached
            step = step_seconds(compute, communication)
            rows[f"predicted for {ranks} H100s, assuming {reached / 1e12:.0f}e12 operations/s each; of ideal scaling"] = {
                "value": round(compute / step, 3), "unit": f"at {ranks * 64 / step:.0f} images/s",
            }  # fmt: skip
    for what, row in rows.items():
        print(f"  {what}: {row['value']} {row['unit']}")
    return Result(
        name="scaling",
        measured="a step of resnet50 at 224 pixels, over sockets on a slowed loopback that all ranks share (ranks at Gbit/s: "
        f"{', '.join(f'{ranks} at {rate}' for ranks, rate in links)}), {gradients / 2**20:.0f} MiB of gradients; `peer` is what the model says, so the ratio is its error",
        unit="s",
        higher_is_better=False,
        ours=ours,
        peer=predicted,
        peer_name="the model of bench/scaling.py",
        details=rows,
    )


def gradient_bytes(run_dir):
    """Of float32 parameters, by the size of a checkpoint's weights without the running statistics' share of 0.3 %."""
    weights = next((run_dir / "checkpoints").glob("step-*/model.safetensors"))
    return weights.stat().st_size


class limited:
    """A network namespace whose loopback lets so many Gbit a second through."""

    def __init__(self, gbit):
        self.gbit = gbit

    def __enter__(self):
        self.__exit__()
        do = lambda *words: subprocess.run(words, check=True, capture_output=True)  # noqa: E731
        do("ip", "netns", "add", NAMESPACE)
        inside = ("ip", "netns", "exec", NAMESPACE)
        do(*inside, "ip", "link", "set", "lo", "up")
        rate = f"{self.gbit}gbit"
        do(*inside, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", rate, "burst", "1mb", "latency", "20ms")

    def __exit__(self, *_):
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)
