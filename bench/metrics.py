"""All figures of one evaluation of COCO 2014's validation split, against scikit-learn's mAP alone."""

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from lib import BINARIES, Result, interleaved

SAMPLES, CLASSES = 40_504, 80
PROBE = BINARIES / "metrics"


def needs():
    return None if PROBE.exists() else f"{PROBE} is not built"


def run(quick):
    import numpy
    from sklearn.metrics import average_precision_score

    # Labels as rare as COCO's (2.9 a picture), scores of a model that has learnt something.
    random = numpy.random.default_rng(0)
    labels = random.random((SAMPLES, CLASSES)) < 2.9 / CLASSES
    scores = random.normal(size=labels.shape).astype("f4") * 2 - 3 + 3 * labels.astype("f4")

    answers = []

    def ours():
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        answers.append(json.loads(output))
        return answers[-1]["all_seconds"]

    peer_map = []

    def peer():
        began = time.perf_counter()
        peer_map.append(average_precision_score(labels, scores, average="macro"))
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "scores", Path(folder) / "labels"
        scores.tofile(files[0])
        labels.astype("u1").tofile(files[1])
        command = [PROBE, *files, str(SAMPLES), str(CLASSES)]
        ours_seconds, peer_seconds = interleaved(ours, peer, 3 if quick else 7)

    difference = abs(answers[-1]["map"] - peer_map[-1])
    if difference > 1e-12:
        raise AssertionError(f"the two mAPs differ by {difference}: speed means nothing then")
    def median(of):
        return statistics.median(answer[of] for answer in answers[1:])

    return Result(
        name="metrics",
        measured=f"mAP, and six figures at p >= 0.5 and for the top 3, of {SAMPLES} x {CLASSES} float32 scores, "
        "one thread; the peer computes mAP alone",
        unit="s",
        higher_is_better=False,
        ours=ours_seconds,
        peer=peer_seconds,
        peer_name="scikit-learn",
        peer_command='average_precision_score(labels, scores, average="macro")',
        details={
            "ours, mAP alone": {"value": median("map_seconds"), "unit": "s"},
            "ours, every figure that a run keeps": {"value": median("every_seconds"), "unit": "s"},
            "ours, one draw of the bootstrap over images": {"value": median("draw_seconds"), "unit": "s"},
            "difference of the two mAPs": {"value": difference, "unit": "1"},
        },
    )
