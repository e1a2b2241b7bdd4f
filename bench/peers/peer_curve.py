"""Peer of bench/loss_curve.py: PyTorch DDP on Gloo over given pixels, order and first weights; prints one loss a step.

torchrun --nproc-per-node 2 peer_curve.py --pixels train.safetensors --weights init.safetensors --steps 20 ...
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import hgat_fc_reference as reference  # noqa: E402

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64) * 255
SCALE = 1 / (torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64) * 255)


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def permutation(seed, epoch, samples):
    """As coordinator/domain/src/permutation.rs defines it."""
    state = mix((mix((seed + GOLDEN) & WORD) + (epoch + 1) * GOLDEN) & WORD)
    order = list(range(samples))
    for last in range(samples - 1, 0, -1):
        state = (state + GOLDEN) & WORD
        pick = (mix(state) * (last + 1)) >> 64
        order[last], order[pick] = order[pick], order[last]
    return order


def build(arguments):
    per_group = json.loads(arguments.groups)
    model = reference.HGAT_FC(
        arguments.backbone, len(per_group), sum(per_group), per_group, arguments.gc, arguments.cc, "gat"
    )
    features = model.heads.reduce_fc[0].fc.in_features
    model.heads = reference.Head(
        features, len(per_group), sum(per_group), per_group, arguments.gc, arguments.cc, "gat", arguments.hidden
    )
    return model


def parse():
    parser = argparse.ArgumentParser()
    for name, kind, default in [
        ("backbone", str, "resnet18"), ("gc", int, 256), ("cc", int, 128), ("hidden", int, 512),
        ("groups", str, "[1]"), ("pixels", str, ""), ("weights", str, ""), ("steps", int, 20),
        ("batch", int, 16), ("rate", float, 0.01), ("seed", int, 0),
    ]:  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--make-weights", action="store_true", help="write first weights to --weights and end")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16; the loss is computed in float32")
    return parser.parse_args()


def main():
    arguments = parse()
    torch.manual_seed(arguments.seed)
    model = build(arguments)
    if arguments.make_weights:
        from safetensors.torch import save_file

        save_file(model.state_dict(), arguments.weights)
        return
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    kind = torch.float64 if arguments.double else torch.float32
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model.load_state_dict(load_file(arguments.weights), strict=True)
    model = model.to(kind).to(memory_format=layout)
    ddp = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.rate, momentum=0.9, weight_decay=1e-4)
    criterion = nn.MultiLabelSoftMarginLoss(reduction="none")
    data = load_file(arguments.pixels)
    pixels, labels = data["pixels"], data["labels"].to(kind)
    # The last step of an epoch is shorter; its losses are weighted by samples, which DDP's mean over ranks is not.
    per_epoch = -(-len(pixels) // arguments.batch)
    share = arguments.batch // world
    for step in range(arguments.steps):
        epoch, at = divmod(step, per_epoch)
        order = permutation(arguments.seed, epoch, len(pixels))
        of_step = order[at * arguments.batch : (at + 1) * arguments.batch]
        ids = of_step[rank * share : (rank + 1) * share]
        x = ((pixels[ids].to(kind) - MEAN.to(kind)) * SCALE.to(kind)).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            logits = ddp(x)
        loss = criterion(logits.to(kind), labels[ids]).sum() * world / len(of_step)
        loss.backward()
        optimizer.step()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        if rank == 0:
            print(f"loss {step} {whole.item() / world!r}", flush=True)
    # Out at once, together: torch 2.11's tear-down of Gloo has hung here with one rank already gone.
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)


main()
