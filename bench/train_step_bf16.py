"""The same training step with bfloat16 convolutions and matrix products on both sides."""

import train_step
from train_step import needs  # noqa: F401


def run(quick):
    return train_step.compare(
        "train_step_bf16", quick, peer_flags=("--bf16",), settings=("train.precision=bf16",)
    )
