"""peer_annotations.py pycocotools|json FILE...: reads COCO annotation files as Python programs do; prints one JSON object.

`pycocotools` is COCO's own API, which builds its index; `json` is json.load alone, the least that anything in Python does. Imports
are not in the time.
"""

import json
import sys
import time
from contextlib import redirect_stdout


def main(way, files):
    if way == "pycocotools":
        from pycocotools.coco import COCO

        def read(file):
            with redirect_stdout(sys.stderr):
                return COCO(file).dataset
    else:

        def read(file):
            with open(file) as text:
                return json.load(text)

    began, spent = time.perf_counter(), time.process_time()
    # Both stay, as a training script keeps both.
    read_files = [read(file) for file in files]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - spent
    peak = peak_mib()
    labels = [len({(one["image_id"], one["category_id"]) for one in of["annotations"]}) for of in read_files]
    pictures = [len(of["images"]) for of in read_files]
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak, "pictures": pictures, "labels": labels}))


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
