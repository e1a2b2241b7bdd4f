"""reference_logits.py CHECKPOINT PIXELS OUT: the PyTorch reference's logits for what a checkpoint holds.

Loads the checkpoint's model.safetensors strictly, by the reference's own names, and writes `logits` [N, C], and as
`flipped` their mean with those of the mirrored pictures, for the
pixels [N, S, S, 3] that `worker pixels` wrote. Also writes OUT.pth.tar: the same weights as torch.save files them.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "reference"))
import hgat_fc_reference as reference  # noqa: E402

checkpoint, pixels, out = sys.argv[1:]
weights = Path(checkpoint) / "model.safetensors"
with safe_open(weights, "pt") as file:
    about = json.loads(file.metadata()["hgat_fc"])
per_group = [len(classes) for _, classes in about["groups"]]
channels = about["group_channels"], about["class_channels"]
reference.ResidualLinearBlock.residual = about["residual"]
model = reference.HGAT_FC(about["backbone"], len(per_group), sum(per_group), per_group, *channels, about["graph"])
features = model.heads.reduce_fc[0].fc.in_features
model.heads = reference.Head(
    features, len(per_group), sum(per_group), per_group, *channels, about["graph"], about["hidden"]
)
state = load_file(weights)
model.load_state_dict(state, strict=True)
model.eval()

images = load_file(pixels)["pixels"].permute(0, 3, 1, 2).float() / 255
mean, std = (torch.tensor(about[key], dtype=torch.float32).view(1, 3, 1, 1) for key in ("mean", "std"))
with torch.no_grad():
    shown = (images - mean) / std
    logits = model(shown)
    save_file({"logits": logits, "flipped": (logits + model(shown.flip(3))) / 2}, out)
wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
torch.save(wrapped, f"{out}.pth.tar")
