"""Makes pip forget packages of its environment that are not whole, so that it installs them again.

A killed pip leaves a package's metadata beside half of its files. Removing the metadata is enough:
pip overwrites whatever files it finds.
"""

import csv
import shutil
import sysconfig
from pathlib import Path


def is_whole(info: Path, site: Path) -> bool:
    """Whether every file that the package's RECORD lists is there in full."""
    record = info / "RECORD"
    if not record.exists():
        return False
    with record.open(newline="") as lines:
        for name, _digest, size, *_ in csv.reader(lines):
            if name.endswith(".pyc"):
                continue
            file = site / name
            # Scripts are rewritten for their environment, so sizes hold within the site alone.
            if not file.exists() or (size and not name.startswith("..") and file.stat().st_size != int(size)):
                return False
    return True


def forget_broken(site: Path) -> list[str]:
    """Removes the metadata of broken packages; returns what it removed."""
    broken = [info for info in sorted(site.glob("*.dist-info")) if not is_whole(info, site)]
    for info in broken:
        shutil.rmtree(info)
    return [info.name.removesuffix(".dist-info") for info in broken]


if __name__ == "__main__":
    for name in forget_broken(Path(sysconfig.get_path("purelib"))):
        print(f"setup: {name} is not whole, it is installed again")
