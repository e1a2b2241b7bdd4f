"""Peer: torchvision's input pipelines on a COCO folder, one process, one thread.

peer_loader.py ROOT [--split train2017] [--size 448] [--repeats 2]
prints `NAME images_per_second` for PIL and for tensors (training transform), for PIL with the
validation transform, and for decoding alone.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pipelines(size):
    """By name: a function of a file."""
    crop = {"size": size, "scale": (0.4, 1.0)}
    train_pil = transforms.Compose([
        transforms.RandomResizedCrop(**crop),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])
    train_tensor = v2.Compose([
        v2.RandomResizedCrop(**crop, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])
    val_pil = transforms.Compose([
        transforms.Resize((size, size)),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])

    def open_pil(file):
        return Image.open(file).convert("RGB")

    def decode(file):
        return decode_jpeg(read_file(file), mode=ImageReadMode.RGB)

    return {
        "pil": lambda file: train_pil(open_pil(file)),
        "tensor": lambda file: train_tensor(decode(file)),
        "pil_val": lambda file: val_pil(open_pil(file)),
        "decode_only": decode,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    annotations = arguments.root / "annotations" / f"instances_{arguments.split}.json"
    images = json.loads(annotations.read_text())["images"]
    files = [str(arguments.root / arguments.split / image["file_name"]) for image in images]
    for name, load in pipelines(arguments.size).items():
        for file in files[:20]:
            load(file)
        began = time.perf_counter()
        for _ in range(arguments.repeats):
            for file in files:
                load(file)
        seconds = time.perf_counter() - began
        print(f"{name} {arguments.repeats * len(files) / seconds:.1f}", flush=True)


if __name__ == "__main__":
    main()
