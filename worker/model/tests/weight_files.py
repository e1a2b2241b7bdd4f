"""Writes weight files as PyTorch writes them, and what is in them as safetensors, into the folder given."""
import argparse
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file

out = Path(sys.argv[1])
torch.manual_seed(3)

# Every form a tensor takes: views of one storage, strides, types, parameters, no values, one value.
base = torch.randn(6, 8)
forms = OrderedDict(
    rows=base[2:4],
    columns=base.t()[1:5],
    shared=base,
    expanded=torch.arange(3.0).expand(4, 3),
    half=torch.randn(5).half(),
    bfloat=torch.randn(5).bfloat16(),
    double=torch.randn(2, 2, dtype=torch.float64),
    long=torch.tensor([-(2**40), 7]),
    byte=torch.arange(5, dtype=torch.uint8)[2:],
    flags=torch.tensor([True, False, True])[1:],
    parameter=torch.nn.Parameter(torch.randn(3, 3)),
    empty=torch.empty(0, 4),
    scalar=torch.tensor(1234),
)
save_file({k: v.detach().contiguous().clone() for k, v in forms.items()}, out / "forms.safetensors", metadata={"a": "1", "b": "2"})
torch.save(forms, out / "forms.pth")
torch.save(forms, out / "forms-protocol-4.pth", pickle_protocol=4)
torch.save(forms, out / "forms-legacy.pth", _use_new_zipfile_serialization=False)
with zipfile.ZipFile(out / "forms.pth") as stored, zipfile.ZipFile(out / "forms-deflated.pth", "w", zipfile.ZIP_DEFLATED) as packed:
    for name in stored.namelist():
        packed.writestr(name, stored.read(name))

# A whole trunk, as DataParallel and an optimizer leave it.
model = torchvision.models.resnet18(num_classes=4)
parallel = torch.nn.DataParallel(model)
optimizer = torch.optim.Adam(parallel.parameters())
model.fc(torch.randn(2, 512)).sum().backward()
optimizer.step()
save_file(model.state_dict(), out / "trunk.safetensors")
checkpoint = {"epoch": 3, "arch": "resnet18", "state_dict": parallel.state_dict(), "best": torch.tensor(1.5), "lr": 0.1,
              "optimizer": optimizer.state_dict(), "done": False, "history": [1, 2.5, None], "size": torch.Size([1, 2])}
torch.save(checkpoint, out / "trunk.pth.tar")
torch.save({"model": {"state_dict": {"backbone." + k: v for k, v in model.state_dict().items() if "num_batches" not in k}}},
           out / "trunk-deep.pth")

# What timm trains: the trunk of torchvision's names, and one whose stem is another.
for name, architecture in (("timm.safetensors", "resnet18"), ("timm-deep-stem.safetensors", "resnet18d")):
    save_file(timm.create_model(architecture, pretrained=False, num_classes=4).state_dict(), out / name)

# What is not weights.
small = torch.nn.Linear(2, 2)
torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": small.state_dict()}, out / "namespace.pth")
torch.save({"best": np.float64(0.5), "state_dict": small.state_dict()}, out / "numpy.pth")
torch.save(small, out / "module.pth")
torch.save(small, out / "module-legacy.pth", _use_new_zipfile_serialization=False)
torch.save([torch.zeros(2)], out / "list.pth")
torch.save({"epoch": 3}, out / "nothing.pth")
torch.save({"teacher": small.state_dict(), "student": small.state_dict()}, out / "two.pth")
torch.jit.save(torch.jit.script(small), out / "script.pt")
