"""A small disk for one run, which can be filled to its last byte and freed again."""

import os
import subprocess
import time
from pathlib import Path

# A few checkpoints of the recipe's model, of 90 MB each.
SIZE = "700m"
# How long after it was freed a full disk may still be the reason for what happens.
AFTERMATH_SECONDS = 20


class Disk:
    def __init__(self, folder, mounted):
        self.folder, self.mounted, self.freed_at = folder, mounted, None
        self.filler = folder / "filler"

    @staticmethod
    def mount(folder):
        """At `folder`, which stays an ordinary one where this machine does not let us mount."""
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
        made = subprocess.run(command, capture_output=True, check=False) if os.geteuid() == 0 else None
        return Disk(folder, made is not None and made.returncode == 0)

    def fill(self, spare):
        """All but `spare` bytes, rounded down to whole pages."""
        free = os.statvfs(self.folder)
        with self.filler.open("ab") as file:
            size = file.tell() + max(0, free.f_bavail * free.f_frsize - spare)
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            except OSError:
                pass  # somebody was quicker: then it is full without us

    def free(self):
        if self.filler.exists():
            self.filler.unlink(missing_ok=True)
            self.freed_at = time.monotonic()

    def is_to_blame(self):
        """Whether it is full, or was a moment ago."""
        lately = self.freed_at is not None and time.monotonic() - self.freed_at < AFTERMATH_SECONDS
        return self.filler.exists() or lately

    def unmount(self):
        if self.mounted:
            # Lazily, so that a process which was left behind, and is reported, does not keep it for ever.
            subprocess.run(["umount", "-l", self.folder], capture_output=True, check=False)
            self.mounted = False


def can_mount(folder):
    disk = Disk.mount(Path(folder) / "probe")
    mounted = disk.mounted
    disk.unmount()
    return mounted
