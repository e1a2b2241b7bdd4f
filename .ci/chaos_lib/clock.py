"""Wall clocks that jump, one for each process: see clock.c. Deadlines must not follow them."""

import shutil
import struct
import subprocess
from pathlib import Path

HOUR, DAY = 3600, 86400
JUMPS = [-40 * DAY, -DAY, -HOUR, -7, 7, HOUR, DAY, 40 * DAY]


class Clocks:
    """The shim, compiled once; None if this machine cannot."""

    def __init__(self, library):
        self.library = library

    @staticmethod
    def build(folder):
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        if not shutil.which("cc"):
            return None, "there is no C compiler"
        made = subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True, check=False
        )
        return (Clocks(library), None) if made.returncode == 0 else (None, made.stderr.strip()[:200])

    def environment(self, file):
        """For a process whose clock stands in `file`."""
        set_clock(file, 0)
        return {"LD_PRELOAD": str(self.library), "CHAOS_CLOCK": str(file)}


def set_clock(file, seconds):
    """In place: processes have the file mapped."""
    with open(file, "r+b" if file.exists() else "w+b") as clock:
        clock.write(struct.pack("=q", seconds))
