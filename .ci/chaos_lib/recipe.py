"""What is trained while it is disturbed: drawn pictures, a model as small as they come."""

import subprocess
from pathlib import Path

FAULT_TIMEOUT = 2.0
TRAIN, VAL, GLOBAL_BATCH = 96, 48, 12
STEPS_PER_EPOCH = TRAIN // GLOBAL_BATCH
MOST_WORKERS = 4


class Recipe:
    def __init__(self, binaries, data, epochs):
        self.coordinator, self.worker = Path(binaries) / "coordinator", Path(binaries) / "worker"
        self.data, self.epochs, self.steps = data, epochs, epochs * STEPS_PER_EPOCH

    def draw(self):
        command = [self.worker, "scenes", "--to", self.data, "--train", str(TRAIN), "--val", str(VAL)]
        subprocess.run([*command, "--seed", "1", "--scale", "0.2"], check=True, capture_output=True)

    def settings(self, world):
        return [
            "model.backbone=resnet18", "model.hidden=16", "model.group_channels=8", "model.class_channels=6",
            "data.size=32", "data.transform=squash_crop", "data.resize=36", f"train.epochs={self.epochs}",
            f"train.global_batch={GLOBAL_BATCH}", "train.micro_batch=2", "train.threads=1", "train.optimizer=sgd",
            "train.learning_rate_trunk=0.01", "train.learning_rate_head=0.01", "train.schedule=cosine",
            "run.snapshot_every_epochs=1", "run.keep_checkpoints=2", f"fault.timeout={FAULT_TIMEOUT}",
            "fault.sentinel_steps=5", "fault.crashes=100000", "fault.hangs=100000", "fault.preemptions=100000",
            f"train.world={'fixed' if world == 'fixed' else 'elastic'}",
            f"train.shared_memory={'false' if world == 'sockets' else 'true'}",
        ]  # fmt: skip
