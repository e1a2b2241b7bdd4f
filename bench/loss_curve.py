"""loss_curve.py [DATA] [--epochs N]: our loss curve beside PyTorch DDP's, from the same first weights, the same pixels and
the same order of samples, without augmentation. Writes docs/loss-curve.json and docs/loss-curve.svg; without DATA, draws
what the first of them holds.

In float64 the two must agree to 1e-6 for the first steps. In float32 training is chaotic: PyTorch is run in two memory
formats, and ours is drawn beside both; and in bf16 beside PyTorch's autocast. Not part of `bench/run`: it takes minutes
and a data set.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from drawing import BLUE, GREEN, VERMILION, legend_below, panels
from lib import BINARIES, ROOT, machine

BATCH, SIZE, RATE = 40, 128, 0.001
MODEL = {"gc": 64, "cc": 32, "hidden": 128}
FLOAT64_STEPS = 20


def ours(data, folder, weights, steps, epochs, precision):
    run_dir = folder / f"ours-{precision}"
    settings = {
        "model.backbone": "resnet18", "model.hidden": MODEL["hidden"], "model.group_channels": MODEL["gc"],
        "model.class_channels": MODEL["cc"], "data.size": SIZE, "data.transform": "squash", "data.flip": "false",
        "train.epochs": epochs, "train.global_batch": BATCH, "train.micro_batch": BATCH // 2, "train.threads": 1,
        "train.precision": precision, "train.optimizer": "sgd", "train.momentum": 0.9, "train.weight_decay": 1e-4,
        "train.learning_rate_trunk": RATE, "train.learning_rate_head": RATE, "train.schedule": "constant",
        "train.warmup": 0, "train.clip_norm": 0, "train.init": str(weights), "train.init_mode": "whole",
    }  # fmt: skip
    command = [str(BINARIES / "coordinator"), "start", "--workers", "2", "--device", "cpu", "--data", str(data)]
    command += ["--run-dir", str(run_dir), "--stop-after", str(steps)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"our run ended with {done.returncode}: {done.stdout}{done.stderr}")
    losses = {}
    for line in (run_dir / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("event") == "progress":
            report = event["report"]
            losses[report["step"]] = struct.unpack("<d", struct.pack("<Q", report["loss_bits"]))[0]
    summary = json.loads((run_dir / "summary.json").read_text())
    return [losses[step] for step in range(steps)], summary


def peer(arguments, steps, extra=()):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [str(ROOT / "bench/peers/peer_curve.py"), *arguments, "--steps", str(steps), *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"the peer ended with {done.returncode}: {done.stderr}")
    losses = dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("loss "))
    return [float(losses[str(step)]) for step in range(steps)]


def plot(record, path):
    from matplotlib.ticker import MaxNLocator

    curves = record["curves"]
    with panels(path, 3.1, 3.7, 3.4) as (above, below, mixed):
        above.plot(curves["ours, float64"], color=BLUE, lw=4, alpha=0.55, label="ours")
        above.plot(curves["PyTorch DDP, float64"], color=VERMILION, ls="--", lw=1.5, label="PyTorch DDP")
        above.set_title(f"float64: at most {record['float64_largest_difference']:.0e} apart")
        legend_below(above, columns=2)
        for name, color, dash, marker in [
            ("ours, float32", BLUE, "-", "o"),
            ("PyTorch DDP, float32, contiguous", VERMILION, "--", "s"),
            ("PyTorch DDP, float32, channels last", GREEN, "-.", "^"),
        ]:
            label = name.replace(", float32", "")
            below.plot(curves[name], color=color, ls=dash, marker=marker, ms=4, lw=1.3, label=label)
        below.set_title("float32: three roundings of one curve")
        legend_below(below)
        for name, color, dash, marker in [
            ("ours, bf16", BLUE, "-", "o"),
            ("PyTorch DDP, bf16 autocast, channels last", VERMILION, "--", "s"),
        ]:
            label = name.replace(", bf16", "", 1)
            mixed.plot(curves[name], color=color, ls=dash, marker=marker, ms=4, lw=1.3, label=label)
        mixed.set_title("bf16: two roundings, coarser")
        legend_below(mixed)
        for axes in (above, below, mixed):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.set_xlabel("step")
            axes.set_ylabel("training loss")
            axes.grid()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    stored, drawn = ROOT / "docs" / "loss-curve.json", ROOT / "docs" / "loss-curve.svg"
    if arguments.data is None:
        plot(json.loads(stored.read_text()), drawn)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pixels, weights = folder / "train.safetensors", folder / "init.safetensors"
        worker = str(BINARIES / "worker")
        subprocess.run(
            [worker, "pixels", "--data", str(arguments.data), "--size", str(SIZE), "--to", str(pixels)], check=True
        )
        annotations = next((arguments.data / "annotations").glob("instances_train*.json"))
        content = json.loads(annotations.read_text())
        names = list(dict.fromkeys(category["supercategory"] for category in content["categories"]))
        groups = [sum(c["supercategory"] == name for c in content["categories"]) for name in names]
        samples = len(content["images"])
        steps = arguments.epochs * -(-samples // BATCH)
        common = ["--pixels", str(pixels), "--weights", str(weights), "--groups", json.dumps(groups)]
        common += ["--batch", str(BATCH), "--rate", str(RATE)]
        for key, value in MODEL.items():
            common += [f"--{key}", str(value)]
        peer_script = str(ROOT / "bench/peers/peer_curve.py")
        subprocess.run([sys.executable, peer_script, *common, "--make-weights"], check=True)
        curves = {}
        curves["ours, float64"], _ = ours(arguments.data, folder, weights, FLOAT64_STEPS, arguments.epochs, "float64")
        curves["PyTorch DDP, float64"] = peer(common, FLOAT64_STEPS, ["--double"])
        curves["ours, float32"], summary = ours(arguments.data, folder, weights, steps, arguments.epochs, "float32")
        curves["PyTorch DDP, float32, contiguous"] = peer(common, steps)
        curves["PyTorch DDP, float32, channels last"] = peer(common, steps, ["--channels-last"])
        curves["ours, bf16"], _ = ours(arguments.data, folder, weights, steps, arguments.epochs, "bf16")
        bf16 = ["--channels-last", "--bf16"]
        curves["PyTorch DDP, bf16 autocast, channels last"] = peer(common, steps, bf16)
    worst = max(abs(a - b) for a, b in zip(curves["ours, float64"], curves["PyTorch DDP, float64"], strict=True))
    print(f"float64: the first {FLOAT64_STEPS} losses differ by at most {worst:.1e}")
    record = {
        "measured": f"HGAT_FC on resnet18 at {SIZE} px, 2 ranks, global batch {BATCH}, SGD, {samples} pictures",
        "float64_largest_difference": worst,
        "map": summary.get("map"),
        "curves": curves,
        "machine": machine(),
    }
    stored.write_text(json.dumps(record, indent=1) + "\n")
    plot(record, drawn)
    if worst > 1e-6:
        sys.exit("more than 1e-6 apart")


if __name__ == "__main__":
    main()
