"""Peer: PyTorch's DistributedDataParallel on Gloo or NCCL, the same model, synthetic tensors.

torchrun --nproc-per-node 2 peer_ddp.py --backbone resnet50 --size 224 --batch 8 --steps 6
prints `first_step` once the first step is done, then `images_per_second X step_seconds Y`.
The model is the PyTorch reference that the tests compare with, in --reference.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--graph", default="gat")
    parser.add_argument("--hidden", type=int, default=1024, help="channels of the head's first layer")
    parser.add_argument("--group-channels", type=int, default=512)
    parser.add_argument("--class-channels", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8, help="pictures a rank")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--fused", action="store_true", help="SGD in its fused form on the CPU too; on CUDA it always is")
    parser.add_argument("--views", action="store_true", help="gradients are views of DDP's buckets, and the graph is static")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    return parser.parse_args()


def main():
    arguments = parse()
    sys.path.insert(0, str(arguments.reference))
    import hgat_fc_reference as reference

    torch.set_num_threads(arguments.threads)
    cuda = arguments.device == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    # Its model does not pass this width on. Made once and not replaced: that would count as the peer's start.
    reference.Head = functools.partial(reference.Head, hidden=arguments.hidden)
    model = reference.HGAT_FC(
        arguments.backbone, graph=arguments.graph, gc=arguments.group_channels, cc=arguments.class_channels
    ).to(device=device, memory_format=layout)
    ddp = nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device.index] if cuda else None,
        gradient_as_bucket_view=arguments.views,
        static_graph=arguments.views,
    )
    forward = torch.compile(ddp) if arguments.compile else ddp
    optimizer = torch.optim.SGD(
        [{"params": model.features.parameters(), "lr": 0.01}, {"params": model.heads.parameters(), "lr": 0.1}],
        momentum=0.9,
        weight_decay=1e-4,
        fused=cuda or arguments.fused,
    )
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size).to(device=device, memory_format=layout)
    labels = (torch.rand(arguments.batch, 80) < 0.04).float().to(device)
    loss = nn.MultiLabelSoftMarginLoss()
    seconds = []
    for step in range(arguments.warmup + arguments.steps):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
            logits = forward(images)
        loss(logits.float(), labels).backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        if step == 0 and rank == 0:
            print("first_step", flush=True)
    if rank == 0:
        # The median, as ours: one slow step of a busy machine is no property of either.
        step_seconds = statistics.median(seconds[arguments.warmup :])
        print(f"images_per_second {world * arguments.batch / step_seconds:.3f} step_seconds {step_seconds:.4f}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
