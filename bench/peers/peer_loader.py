"""Peer: input pipelines of others on a COCO folder, one process, one thread.

peer_loader.py ROOT [--split train2017] [--size 448] [--seconds 3] [--only NAME,...] [--serve]
prints `NAME images_per_cpu_second` for each pipeline that can run here, and `NAME skipped: why` for the others; with
--serve once for each name that comes on stdin, so that others can be measured in between:
  pil           torchvision on PIL pictures, training transform
  tensor        torchvision.transforms.v2 on uint8 tensors, training transform, antialiased
  tensor_uint8  the same without what comes after the pixels: no conversion to float32, no normalisation
  opencv        OpenCV to uint8, training transform; it has no antialiased bilinear filter, so this is less work than ours
  dali          NVIDIA DALI on CPU to uint8, fused decoding of the crop and antialiased resizing
  pil_val       torchvision on PIL pictures, validation transform
  tensor_val    torchvision.transforms.v2 on uint8 tensors, validation transform
  tensor_uint8_val  the same to uint8
  opencv_val    OpenCV to uint8, validation transform
Memory that one pipeline has freed makes the next one faster (glibc raises its threshold for mmap), so what is compared
runs in a process of its own. CPU time is that of the whole process, so that threads that a library starts by itself are counted.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from pathlib import Path

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NAMES = (
    "pil", "tensor", "tensor_uint8", "opencv", "dali", "pil_val", "tensor_val", "tensor_uint8_val", "opencv_val",
)  # fmt: skip
SCALE, RATIO = (0.4, 1.0), (3 / 4, 4 / 3)


def torchvision_pipelines(size):
    import torch
    from PIL import Image
    from torchvision import transforms
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import v2

    torch.set_num_threads(1)

    def pil(first, *rest):
        transform = transforms.Compose([first, *rest, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        return lambda file: transform(Image.open(file).convert("RGB"))

    def uint8(*steps):
        transform = v2.Compose(steps)
        return lambda file: transform(decode_jpeg(read_file(file), mode=ImageReadMode.RGB))

    def tensor(*first):
        return uint8(*first, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))

    train = v2.RandomResizedCrop(size, scale=SCALE, antialias=True), v2.RandomHorizontalFlip()
    val = v2.Resize((size, size), antialias=True)
    return {
        "pil": pil(transforms.RandomResizedCrop(size, scale=SCALE), transforms.RandomHorizontalFlip()),
        "tensor": tensor(*train),
        "tensor_uint8": uint8(*train),
        "pil_val": pil(transforms.Resize((size, size))),
        "tensor_val": tensor(val),
        "tensor_uint8_val": uint8(val),
    }


def opencv_pipelines(size):
    import cv2

    cv2.setNumThreads(0)

    def crop(height, width):
        for _ in range(10):
            area = width * height * random.uniform(*SCALE)
            aspect = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        return 0, 0, height, width

    def train(file):
        image = cv2.imread(file, cv2.IMREAD_COLOR)
        top, left, height, width = crop(*image.shape[:2])
        image = cv2.resize(image[top : top + height, left : left + width], (size, size), interpolation=cv2.INTER_LINEAR)
        if random.random() < 0.5:
            image = cv2.flip(image, 1)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def val(file):
        image = cv2.resize(cv2.imread(file, cv2.IMREAD_COLOR), (size, size), interpolation=cv2.INTER_LINEAR)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    return {"opencv": train, "opencv_val": val}


def dali_pipeline(files, size):
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipeline():
        encoded, _ = fn.readers.file(files=files, random_shuffle=False)
        images = fn.decoders.image_random_crop(
            encoded, device="cpu", output_type=types.RGB, random_area=list(SCALE), random_aspect_ratio=list(RATIO)
        )
        images = fn.resize(images, size=(size, size), interp_type=types.INTERP_TRIANGULAR)
        return fn.flip(images, horizontal=fn.random.coin_flip())

    built = pipeline()
    built.build()
    return built


def rate(work, seconds):
    """Images per CPU second: `work` does some and says how many."""
    work()
    images, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        images += work()
    return images / (time.process_time() - began)


def pipeline(name, files, size):
    """A function that does some images and says how many; or why there is none. Only what it needs is imported."""
    try:
        if name == "dali":
            built = dali_pipeline(files, size)

            def some():
                built.run()
                return 16

            return some
        make = opencv_pipelines if name.startswith("opencv") else torchvision_pipelines
        load = make(size)[name]
    except Exception as error:  # DALI's checks of the driver raise RuntimeError
        return str(error).splitlines()[0]
    at = 0

    def some():
        nonlocal at
        for _ in range(20):
            load(files[at % len(files)])
            at += 1
        return 20

    return some


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()

    # Libraries that start a thread for every core see one.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    annotations = arguments.root / "annotations" / f"instances_{arguments.split}.json"
    images = json.loads(annotations.read_text())["images"]
    files = [str(arguments.root / arguments.split / image["file_name"]) for image in images]
    known = {}
    names = (line.strip() for line in sys.stdin) if arguments.serve else (arguments.only or ",".join(NAMES)).split(",")
    for name in names:
        if name not in known:
            known[name] = pipeline(name, files, arguments.size)
        work = known[name]
        answer = f"skipped: {work}" if isinstance(work, str) else f"{rate(work, arguments.seconds):.1f}"
        print(f"{name} {answer}", flush=True)


if __name__ == "__main__":
    main()
