"""All figures of one evaluation of COCO 2014's validation split, against scikit-learn's mAP alone."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import BINARIES, ROOT, Result, command_line, interleaved, missing

SAMPLES, CLASSES = 40_504, 80
PEER = ROOT / "bench" / "peers" / "peer_metrics.py"
PROBE, SCORING = BINARIES / "metrics", BINARIES / "scoring"


def needs():
    return missing(PROBE, SCORING)


def answer(command):
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def row(values, unit):
    return {"value": statistics.median(values), "unit": unit, "repeats": values}


def run(quick):
    sys.path.insert(0, str(PEER.parent))
    from peer_metrics import draw, timed

    labels, scores = draw(SAMPLES, CLASSES)

    answers = []

    def ours():
        answers.append(answer(command))
        return answers[-1]["all_seconds"]

    peer_map = []

    def peer():
        seconds, found = timed(labels, scores)
        peer_map.append(found)
        return seconds

    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "scores", Path(folder) / "labels"
        scores.tofile(files[0])
        labels.astype("u1").tofile(files[1])
        command = [PROBE, *files, str(SAMPLES), str(CLASSES)]
        ours_seconds, peer_seconds = interleaved(ours, peer, repeats=3 if quick else 7)
        processor = str(min(os.sched_getaffinity(0)))
        alone = [answer(["taskset", "-c", processor, *command])["all_seconds"] for _ in range(3)]
        # Many equal scores, as a model in bfloat16 gives: one of the definitions goes by the order of samples then.
        (scores.view("u4") & 0xFFFF0000).view("f4").tofile(files[0])
        rounded = [answer(command)["all_seconds"] for _ in range(3)]
    taken = answer([SCORING, str(SAMPLES), str(CLASSES), "3" if quick else "7"])

    difference = abs(answers[-1]["map"] - peer_map[-1])
    if difference > 1e-12:
        raise AssertionError(f"the two mAPs differ by {difference}: speed means nothing then")

    def seconds(of):
        return row([answer[of] for answer in answers[1:]], "s")

    def rows_a_second(of):
        # The first evaluation of a run finds nothing warm.
        return row([round(SAMPLES / taken_seconds, 1) for taken_seconds in taken[of][1:]], "images/s")

    return Result(
        name="metrics",
        measured=f"every figure that a run keeps of an evaluation (mAP; precision, recall and F1 by three ways of predicting "
        f"labels; calibration; best thresholds; mAP by three other definitions) of {SAMPLES} x {CLASSES} float32 scores, "
        "on two threads; the peer computes mAP alone, on one",
        unit="s",
        higher_is_better=False,
        ours=ours_seconds,
        peer=peer_seconds,
        peer_name="scikit-learn",
        peer_command=command_line([sys.executable, PEER, SAMPLES, CLASSES]),
        details={
            "ours, mAP alone": seconds("map_seconds"),
            "ours, every figure, on one processor": row(alone, "s"),
            "ours, every figure, of scores rounded to bfloat16": row(rounded, "s"),
            "ours, one draw of the bootstrap over images": seconds("draw_seconds"),
            "scores that a coordinator takes over a socket, until it holds them": rows_a_second("held_seconds"),
            "the same, until all figures are there": rows_a_second("figures_seconds"),
            "difference of the two mAPs": {"value": difference, "unit": "1"},
        },
    )
