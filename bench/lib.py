"""What every bench here shares: interleaved repeats, a record of the machine, the result file.

A bench is a module `bench/NAME.py` with
    needs() -> str | None       why it cannot run here, or None
    run(quick: bool) -> Result  measures ours and peers, in turn, in this one process; or ours alone where nobody has the like
and `bench/run` finds it by its name. Ratios above 1 always mean that ours is better.
"""

import dataclasses
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
# Peers suffer from page faults of large temporaries: with these, glibc gives them memory that it keeps, as ours does.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


@dataclasses.dataclass
class Result:
    """One headline: the same quantity of ours and of a peer, repeated in turn; without a peer, of ours."""

    name: str  # the file's name in bench/results
    measured: str  # one sentence: what, on what, how
    unit: str
    higher_is_better: bool
    ours: list[float]
    peer: list[float] | None = None
    peer_name: str = ""
    # Of the peer that the ratio is of.
    peer_command: str = ""
    # Where several peers are measured: of each, by the name of its row in `details`.
    peer_commands: dict[str, str] = dataclasses.field(default_factory=dict)
    # Further rows of the same bench, by name: {"value": …, "unit": …}, and every value of several in "repeats".
    details: dict = dataclasses.field(default_factory=dict)
    quick: bool = False

    def ratios(self) -> list[float]:
        """Per repeat, so that what slows both down cancels."""
        if self.peer is None:
            return []
        pairs = zip(self.ours, self.peer, strict=True)
        return [o / p if self.higher_is_better else p / o for o, p in pairs]

    def record(self) -> dict:
        """What the result file holds. `ratio` is the headline."""
        ratios = self.ratios()
        commands = self.peer_commands or ({self.peer_name: self.peer_command} if self.peer_command else {})
        return {
            "name": self.name,
            "measured": self.measured,
            "unit": self.unit,
            "ours": statistics.median(self.ours),
            "peer": statistics.median(self.peer) if ratios else None,
            "ratio": statistics.median(ratios) if ratios else None,
            # Without ratios, of ours.
            "spread": [min(ratios or self.ours), max(ratios or self.ours)],
            "repeats": len(self.ours),
            # In the order in which they were taken. Files of earlier days lack these and `peer_commands`.
            "repeats_ours": self.ours,
            "repeats_peer": self.peer,
            "quick": self.quick,
            "peer_name": self.peer_name,
            "peer_command": self.peer_command,
            "peer_commands": commands,
            "details": self.details,
            "machine": machine(),
        }

    def write(self) -> Path:
        """Writes `bench/results/NAME.json`, whole or not at all."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        part = path.with_suffix(".json.tmp")
        part.write_text(json.dumps(self.record(), indent=1, ensure_ascii=False) + "\n")
        part.replace(path)
        return path


def draw_scenes(to: Path, train: int, timeout: float, *more: str, val: int = 16):
    """Draws a data set of so many pictures, the same ones every time; `more` is passed to `worker scenes`."""
    command = [BINARIES / "worker", "scenes", "--to", to, "--train", str(train), "--val", str(val), "--seed", "1", *more]
    subprocess.run(command, check=True, capture_output=True, timeout=timeout)


def missing(*paths: Path) -> str | None:
    """Which file is not there, if any, as `needs` says it."""
    absent = [path for path in paths if not path.exists()]
    return f"{absent[0]} is missing" if absent else None


def command_line(command, environment=None) -> str:
    """A command with the variables set for it, as typed at the root of any clone in a shell with `make env`'s exports."""
    words = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    for word in map(str, command):
        if word == sys.executable:
            words.append("python")
        elif word == os.environ.get("HGAT_TEST_COCO"):
            words.append('"$HGAT_TEST_COCO"')
        else:
            words.append(shlex.quote(word.removeprefix(f"{ROOT}/")))
    return " ".join(words)


def interleaved(*measures, repeats: int) -> list[list[float]]:
    """Calls all in turn, after one round that does not count; returns what each returned."""
    rounds = [[measure() for measure in measures] for _ in range(repeats + 1)]
    return [list(values) for values in zip(*rounds[1:], strict=True)]


def row_with_ratios(values: list[float], ratios: list[float], unit: str) -> dict:
    """A row of `details` that was measured beside another."""
    return {
        "value": statistics.median(values),
        "unit": unit,
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "repeats": values,
    }


def table(records: list[dict]) -> str:
    """The results as Markdown, as docs show them."""
    rows = ["| what | ours | peer | ratio | spread | repeats | peer is |", "|---|---|---|---|---|---|---|"]
    for r in records:
        low, high = r["spread"]
        if r["peer"] is None:
            rows.append(f"| {r['name']} | {r['ours']:.4g} {r['unit']} | | | {low:.4g} to {high:.4g} {r['unit']} | {r['repeats']} | nobody |")
            continue
        rows.append(
            f"| {r['name']} | {r['ours']:.4g} {r['unit']} | {r['peer']:.4g} {r['unit']} "
            f"| **{r['ratio']:.2f}** | {low:.2f} to {high:.2f} | {r['repeats']} | {r['peer_name']} |"
        )
        rows.extend(further_rows(r))
    return "\n".join(rows)


def further_rows(record: dict) -> list[str]:
    """Rows of what else was measured and compared beside the headline: other peers, and other ways of ours."""
    rows = []
    for name, row in record["details"].items():
        value, ratio = row.get("value", row.get("median")), row.get("ratio")
        if ratio is None or value is None or value == record["peer"]:
            continue
        low, high = row.get("spread", (ratio, ratio))
        rows.append(
            f"| | | | {ratio:.2f} | {low:.2f} to {high:.2f} | {len(row['repeats'])} | {name}: {value:.4g} {record['unit']} |"
        )
    return rows


def machine() -> dict:
    """What a figure depends on besides the code."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": first_line(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": first_line(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
        "load_before": os.getloadavg()[0],
    }


def cpu_model() -> str | None:
    """Its name, and family and model where they are told: clouds give one name to generations that differ twofold."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    name = told.get("model name")
    if name is None or "cpu family" not in told:
        return name
    return f"{name}, family {told['cpu family']} model {told.get('model')}"


def first_line(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.splitlines()[0] if answer.stdout else None
