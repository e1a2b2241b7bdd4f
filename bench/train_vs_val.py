"""train_vs_val.py NAME=RUN_DIR ...: the plots and the table of docs/train-vs-val-map.md from runs with
run.train_figures = "decomposed".

Reads each run's summary.json, writes docs/train-vs-val-map.json with every figure that is drawn, and an SVG a run. Not a
bench with a peer: `bench/run` passes it over.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

# Okabe and Ito's colours, which the colour-blind tell apart; each line has a dash of its own too.
LINES = [
    ("val", "validation", "#000000", "-", "o"),
    ("train_clean", "training, clean", "#0072B2", "-", "s"),
    ("train_crops", "training, crops", "#56B4E9", "--", "^"),
    ("train_batch", "training, batch statistics", "#009E73", "-.", "v"),
    ("train_crops_batch", "training, crops and batch statistics", "#E69F00", "--", "D"),
    ("online", "training, online (the whole epoch)", "#D55E00", "-", "X"),
]
# Each step of the way from validation's figure to the one that the notes' program prints.
STEPS = [
    ("val", "validation"),
    ("train_clean", "training pictures"),
    ("train_crops", "+ crops"),
    ("train_crops_batch", "+ batch\nstatistics"),
    ("online_subset", "+ moving\nweights"),
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
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "hgat"
    matplotlib.rcParams["font.size"] = 11
    from matplotlib import pyplot

    # One above the other, so that a phone shows it; a white ground, so that a dark page does too.
    figure, (curves, steps) = pyplot.subplots(2, 1, figsize=(6.4, 8.4), constrained_layout=True, facecolor="white")
    numbers = [e["epoch"] for e in run["epochs"]]
    for name, label, color, dash, marker in LINES:
        values = [e["map"].get(name) for e in run["epochs"]]
        curves.plot(numbers, values, color=color, ls=dash, marker=marker, ms=4.5, lw=1.6, label=label)
    curves.axhline(run["chance"], color="#777777", lw=1, ls=":")
    curves.annotate("chance", (numbers[-1], run["chance"]), ha="right", va="bottom", color="#555555", fontsize=9)
    curves.set_xlabel("epoch")
    curves.set_ylabel("mAP, %")
    curves.set_xticks(numbers if len(numbers) <= 12 else numbers[1::2])
    curves.set_ylim(bottom=0)
    curves.grid(alpha=0.25)
    curves.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1, frameon=False, fontsize=10)

    shown = [run["epochs"][0], run["epochs"][-1]]
    width = 0.38
    for index, (epoch, color, hatch) in enumerate(zip(shown, ["#E69F00", "#0072B2"], ["//", ""], strict=True)):
        values = [epoch["map"][name] for name, _ in STEPS]
        places = [at + (index - 0.5) * width for at in range(len(STEPS))]
        bars = steps.bar(
            places, values, width, color=color, hatch=hatch, edgecolor="white", label=f"epoch {epoch['epoch']}"
        )
        steps.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=9, padding=1)
    steps.set_xticks(range(len(STEPS)), [label for _, label in STEPS], fontsize=9.5)
    steps.set_ylabel("mAP, %")
    steps.set_ylim(0, 1.3 * max(e["map"][name] for e in shown for name, _ in STEPS))
    steps.grid(axis="y", alpha=0.25)
    steps.set_axisbelow(True)
    steps.legend(frameon=False, loc="upper right", ncols=2, fontsize=10)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


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
    runs = {}
    for argument in arguments:
        name, run_dir = argument.split("=", 1)
        runs[name] = read(run_dir)
        plot(runs[name], DOCS / f"train-vs-val-map-{name}.svg")
        print(f"{name}\n{table(runs[name])}\n")
    (DOCS / "train-vs-val-map.json").write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
