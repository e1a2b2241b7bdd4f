"""train_vs_val.py [NAME=RUN_DIR ...]: the plots and the table of docs/train-vs-val-map.md from runs with
run.train_figures = "decomposed".

Reads each run's summary.json, writes docs/train-vs-val-map.json with every figure that is drawn, and an SVG a run; without
arguments it draws what that file holds. Not a bench with a peer: `bench/run` passes it over.
"""

import json
import sys
from pathlib import Path

from drawing import BLACK, BLUE, GREEN, GREY, OCHRE, PURPLE, VERMILION, legend_below, panels
from lib import ROOT

DOCS = ROOT / "docs"

LINES = [
    ("val", "validation", BLACK, "-", "o"),
    ("train_clean", "training, clean", BLUE, "-", "s"),
    ("train_crops", "training, crops", PURPLE, "--", "^"),
    ("train_batch", "training, batch statistics", GREEN, "-.", "v"),
    ("train_crops_batch", "training, crops and batch statistics", OCHRE, "--", "D"),
    ("online", "training, online (the whole epoch)", VERMILION, "-", "X"),
]
# Each step of the way from validation's figure to the one that the notes' program prints.
STEPS = [
    ("val", "validation"),
    ("train_clean", "training pictures"),
    ("train_crops", "+ crops"),
    ("train_crops_batch", "+ batch statistics"),
    ("online_subset", "+ moving weights"),
]


def read(run_dir):
    summary = json.loads((Path(run_dir) / "summary.json").read_text())
    maps = {e["epoch"]: e["map"] for e in summary["evaluations"]}
    epochs = []
    for further in summary["further_figures"]:
        figures = {name: figure["map"] for name, figure in further["figures"].items()}
        images = {name: figure["images"] for name, figure in further["figures"].items()}
        figures["val"], images["val"] = maps[further["epoch"]], summary["validation_images"]
        epochs.append(
            {
                "epoch": further["epoch"],
                "map": {name: round(100 * map, 2) for name, map in sorted(figures.items()) if map is not None},
                "images": dict(sorted(images.items())),
                "train_below_validation": further["train_below_validation"],
            }
        )
    return {"chance": round(100 * summary["chance_map"], 2), "epochs": epochs}


def plot(run, path):
    with panels(path, 4.6, 3.9) as (curves, steps):
        numbers = [e["epoch"] for e in run["epochs"]]
        for name, label, color, dash, marker in LINES:
            values = [e["map"].get(name) for e in run["epochs"]]
            curves.plot(numbers, values, color=color, ls=dash, marker=marker, ms=5, lw=1.6, label=label)
        curves.axhline(run["chance"], color=GREY, lw=1, ls=":", label="chance")
        curves.set_title("mAP after each epoch")
        curves.set_xlabel("epoch")
        curves.set_ylabel("mAP, %")
        curves.set_xticks(numbers if len(numbers) <= 12 else numbers[1::2])
        curves.set_ylim(bottom=0)
        curves.grid()
        legend_below(curves)

        shown = [run["epochs"][0], run["epochs"][-1]]
        width = 0.38
        looks = [(VERMILION, "////"), (BLUE, "")]
        for index, (epoch, (color, hatch)) in enumerate(zip(shown, looks, strict=True)):
            values = [epoch["map"][name] for name, _ in STEPS]
            places = [at + (index - 0.5) * width for at in range(len(STEPS))]
            bars = steps.barh(
                places, values, width, color=color, hatch=hatch, edgecolor="white", label=f"epoch {epoch['epoch']}"
            )
            steps.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=9.5, padding=3)
        steps.set_title("One cause more in each row")
        steps.set_yticks(range(len(STEPS)), [label for _, label in STEPS])
        steps.invert_yaxis()
        steps.tick_params(axis="y", length=0)
        steps.set_xlabel("mAP, %")
        steps.set_xlim(0, 1.12 * max(e["map"][name] for e in shown for name, _ in STEPS))
        steps.grid(axis="x")
        legend_below(steps, columns=2)


def table(run):
    """Markdown rows: differences in points from one step to the next."""
    out = ["| epoch | validation | training pictures | crops | batch statistics | moving weights | online |"]
    out.append("|---|---|---|---|---|---|---|")
    for epoch in run["epochs"]:
        values = [epoch["map"][name] for name, _ in STEPS]
        differences = [f"{b - a:+.1f}" for a, b in zip(values, values[1:])]
        out.append(f"| {epoch['epoch']} | {values[0]:.1f} | {' | '.join(differences)} | {epoch['map']['online']:.1f} |")
    return "\n".join(out)


def main(arguments):
    stored = DOCS / "train-vs-val-map.json"
    if arguments:
        runs = {name: read(run_dir) for name, run_dir in (argument.split("=", 1) for argument in arguments)}
        stored.write_text(json.dumps(runs, indent=1) + "\n")
    for name, run in json.loads(stored.read_text()).items():
        plot(run, DOCS / f"train-vs-val-map-{name}.svg")
        print(f"{name}\n{table(run)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
