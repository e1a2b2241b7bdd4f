"""Peer: scikit-learn's mAP of random scores, as many as COCO 2014's validation split has.

peer_metrics.py SAMPLES CLASSES
prints `step_seconds X`.
"""

import sys
import time

import numpy
from sklearn.metrics import average_precision_score


def draw(samples, classes):
    """Labels as rare as COCO's (2.9 a picture), and scores of a model that has learnt something."""
    random = numpy.random.default_rng(0)
    labels = random.random((samples, classes)) < 2.9 / classes
    scores = random.normal(size=labels.shape).astype("f4") * 2 - 3 + 3 * labels.astype("f4")
    return labels, scores


def timed(labels, scores):
    """The seconds that it takes, and the mAP."""
    began = time.perf_counter()
    found = average_precision_score(labels, scores, average="macro")
    return time.perf_counter() - began, found


if __name__ == "__main__":
    print("step_seconds", timed(*draw(*map(int, sys.argv[1:3])))[0])
