"""golden.py OUT: what the PyTorch reference computes, one safetensors file a case, for tests/reference."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bench" / "reference"))
import hgat_fc_reference as reference  # noqa: E402

COCO = reference.NCLASSES_PER_GROUP
# name: backbone, graph, residual, per group, group channels, class channels, hidden, batch, side
CASES = {
    "gat_sum": ("resnet18", "gat", "sum", [1, 3, 2], 8, 6, 16, 4, 64),
    "none_sum": ("resnet18", "none", "sum", [1, 3, 2], 8, 6, 16, 4, 64),
    "fc_sum": ("resnet18", "fc", "sum", [1, 3, 2], 8, 6, 16, 4, 64),
    "gat_resnet": ("resnet18", "gat", "resnet", [4, 1], 12, 8, 10, 3, 64),
    "fc_resnet": ("resnet18", "fc", "resnet", [4, 1], 12, 8, 10, 3, 64),
    "none_resnet": ("resnet18", "none", "resnet", [2, 2, 5], 6, 10, 7, 5, 64),
    "coco_gat": ("resnet18", "gat", "sum", COCO, 64, 32, 128, 6, 64),
    "coco_fc": ("resnet18", "fc", "sum", COCO, 16, 8, 32, 6, 64),
    "full_head": ("resnet18", "gat", "sum", COCO, 512, 256, 1024, 4, 64),
    "bottleneck": ("resnet50", "gat", "sum", [2, 3], 8, 6, 16, 4, 64),
    "deep34": ("resnet34", "none", "sum", [2, 3], 8, 6, 16, 2, 64),
    "deep101": ("resnet101", "none", "sum", [2, 3], 8, 6, 16, 2, 64),
    "deep152": ("resnet152", "none", "sum", [2, 3], 8, 6, 16, 2, 64),
}


def build(backbone, graph, residual, per_group, gc, cc, hidden):
    reference.ResidualLinearBlock.residual = residual
    m = reference.HGAT_FC(backbone, len(per_group), sum(per_group), per_group, gc, cc, graph)
    features = m.heads.reduce_fc[0].fc.in_features
    m.heads = reference.Head(features, len(per_group), sum(per_group), per_group, gc, cc, graph, hidden)
    for module in m.modules():
        # Nothing at its first value: a mistake in scale, shift or statistics must show.
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, reference.BGATLayer):
            nn.init.uniform_(module.beta, 0.5, 1.5)
    return m


def run(m, x, y, train, out, prefix):
    m.train(train)
    m.zero_grad(set_to_none=True)
    logits = m(x)
    loss = nn.MultiLabelSoftMarginLoss()(logits, y)
    loss.backward()
    out[f"{prefix}logits"] = logits.detach()
    out[f"{prefix}loss"] = loss.detach()
    for name, parameter in m.named_parameters():
        # A copy: converting the model to float32 later would convert the gradient in place.
        out[f"{prefix}grad/{name}"] = parameter.grad.detach().clone()


def mixed(m, state, x, y, out):
    """Under PyTorch's autocast to bfloat16, in eval mode: with so few samples batch statistics make noise of it all."""
    m.load_state_dict(state)
    m.eval()
    m.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = m(x)
    nn.MultiLabelSoftMarginLoss()(logits.float(), y).backward()
    out["mixed/logits"] = logits.detach().float()
    for name, parameter in m.named_parameters():
        out[f"mixed/grad/{name}"] = parameter.grad.detach().clone()


def case(number, spec):
    backbone, graph, residual, per_group, gc, cc, hidden, batch, side = spec
    torch.manual_seed(number)
    m = build(backbone, graph, residual, per_group, gc, cc, hidden)
    state = {k: v.clone() for k, v in m.state_dict().items()}
    x = torch.randn(batch, 3, side, side)
    y = (torch.rand(batch, sum(per_group)) < 0.3).float()
    out = {"x": x, "y": y}
    out.update({f"state/{k}": v for k, v in state.items()})

    double = m.double()
    run(double, x.double(), y.double(), False, out, "eval/")
    run(double, x.double(), y.double(), True, out, "train/")
    out.update({f"after/{k}": v.clone() for k, v in double.state_dict().items() if "running" in k or "num_b" in k})

    for prefix, layout in (("plain/", torch.contiguous_format), ("last/", torch.channels_last)):
        single = m.float().to(memory_format=layout)
        single.load_state_dict(state)
        run(single, x.to(memory_format=layout), y, True, out, prefix)
        single.load_state_dict(state)
        single.eval()
        out[f"{prefix}eval"] = single(x.to(memory_format=layout)).detach()
    if backbone == "resnet18":
        mixed(m.float().to(memory_format=torch.contiguous_format), state, x, y, out)
    return {k: v.contiguous().clone() for k, v in out.items()}


def main(folder):
    torch.set_num_threads(2)
    for number, (name, spec) in enumerate(CASES.items()):
        backbone, graph, residual, per_group, gc, cc, hidden, batch, side = spec
        about = {
            "backbone": backbone, "graph": graph, "residual": residual, "gc": str(gc), "cc": str(cc),
            "hidden": str(hidden), "per_group": ",".join(map(str, per_group)),
        }
        save_file(case(number, spec), str(Path(folder) / f"{name}.safetensors"), metadata=about)


main(sys.argv[1])
