"""Training pictures from the cache of decoded ones on one thread, cold and warm, against torchvision on PIL pictures."""

import statistics
import tempfile

import loader
from lib import KEPT_MEMORY, Result, row_with_ratios


def needs():
    return loader.needs()


def run(quick):
    repeats, seconds = (2, 0.4) if quick else (5, 0.7)
    command = loader.peer_command("train", seconds)
    cold, warm, jpeg, peer, kept = [], [], [], [], []
    with loader.Peer(command, {}) as pil, loader.Peer(command, KEPT_MEMORY) as pil_kept:
        # One round that does not count.
        for repeat in range(repeats + 1):
            with tempfile.TemporaryDirectory() as folder:
                cached = loader.probe("train", str(loader.SIZE), "3", folder)
            plain = loader.probe("train", str(loader.SIZE), "1")
            rates = pil.measure("pil"), pil_kept.measure("pil")
            if repeat > 0:
                cold.append(cached["first_round"])
                warm.append(cached["images_per_cpu_second"])
                jpeg.append(plain["images_per_cpu_second"])
                peer.append(rates[0])
                kept.append(rates[1])

    def row(values, peers):
        ratios = [v / p for v, p in zip(values, peers, strict=True)]
        return row_with_ratios(values, ratios, "images per CPU second")

    def alone(values):
        return {"value": statistics.median(values), "unit": "images per CPU second", "repeats": values}

    lines = {f"pil, {how}": loader.peer_line("pil", "train", seconds, set_) for how, set_ in loader.MEMORY.items()}

    return Result(
        name="cached_loader",
        measured=f"train {loader.pictures()}, random resized crop of 0.4 to 1 of the area and flip, to "
        f"{loader.SIZE} x {loader.SIZE} uint8, from a warm cache in the page cache; one thread, all CPU time of the process",
        unit="images per CPU second",
        higher_is_better=True,
        ours=warm,
        peer=peer,
        peer_name="torchvision on PIL pictures",
        peer_command=lines["pil, as shipped"],
        peer_commands=lines,
        details={
            "warm, against PIL with malloc thresholds raised": row(warm, kept),
            "cold: decoding whole pictures and writing the cache": row(cold, peer),
            "without a cache": row(jpeg, peer),
            "pil, as shipped": alone(peer),
            "pil, malloc thresholds raised": alone(kept),
        },
    )
