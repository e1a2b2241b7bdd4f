"""What must hold of a run that has ended, whatever was done to it: one check for all.

- its own ledger: every sample of every epoch exactly once, and every rank's digests agree with the plan;
- an independent witness of each worker process: what it really put into each step of the lineage, and that it applied
  no step twice;
- every evaluation that was due has its figures, in a fixed world those of a run that nobody disturbed;
- replicas that reported the same step hold the same state; every decision can be replayed; every checkpoint verifies;
  a fixed world ends with the bits of a run that nobody disturbed;
- no process, socket or temporary file is left.
"""

import collections
import dataclasses
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

from .recipe import STEPS_PER_EPOCH, TRAIN

UNFINISHED = (".new", ".tmp", ".part", ".partial", ".replaced", ".removed", ".damaged")
# Processes that were told to end may take a moment.
LEAVE_SECONDS = 15


@dataclasses.dataclass
class Left:
    """What a run leaves behind."""

    run_dir: Path
    witness: Path
    output: Path
    temporary: Path

    def names(self):
        """Texts that are in the command line of every process of the run."""
        try:
            return [str(self.run_dir), json.loads((self.run_dir / "coordinator.json").read_text())["run_id"]]
        except (OSError, ValueError, KeyError):
            return [str(self.run_dir)]

    def hashes(self):
        """Of the last checkpoint's tensors."""
        last = self.run_dir / "checkpoints" / "last"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))}

    def maps(self):
        """By step, the mAP of every evaluation, as the summary tells it."""
        summary = json.loads((self.run_dir / "summary.json").read_text())
        return {known["step"]: known["map"] for known in summary["evaluations"]}

    def undisturbed(self):
        """What a disturbed run in a fixed world is compared with, of this one."""
        return {"hashes": self.hashes(), "maps": self.maps()}

    def texts(self, name):
        """The lines of a file as values; a line that was cut off by a kill is none."""
        for line in (self.run_dir / name).read_text(errors="replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def check(left, recipe, finished=True, reference=None, network=None, disk_was_full=False):
    """Returns what does not hold. `reference`: what `Left.undisturbed` says of the run that nobody disturbed."""
    problems = []
    try:
        ledger = ask(recipe, "ledger", "--verify", "--run-dir", left.run_dir)
        if ledger.returncode != 0:
            problems.append(f"ledger: {(ledger.stderr or ledger.stdout).strip()[:400]}")
        record = json.loads(ask(recipe, "ledger", "--json", "--run-dir", left.run_dir).stdout)
        told = record["check"]
        # What holds for want of reports would say nothing.
        if told["ranks_confirmed"] < told["ranks_unreported"]:
            problems.append(f"most ranks' digests are missing: {told['ranks_confirmed']} confirmed, {told['ranks_unreported']} not")
        problems += check_witness(left, record, recipe, finished)
    except (ValueError, OSError) as problem:
        problems.append(f"the ledger cannot be read: {problem}")
    problems += check_replicas(left)
    replay = ask(recipe, "replay", left.run_dir / "events.jsonl")
    if replay.returncode != 0:
        problems.append(f"replay: {replay.stderr.strip()[:400]}")
    verified = ask(recipe, "checkpoints", "--verify", "--run-dir", left.run_dir)
    if verified.returncode != 0:
        problems.append(f"checkpoints: {verified.stderr.strip()[:400]}")
    if finished and reference is not None and left.hashes() != reference["hashes"]:
        problems.append("its last checkpoint is not that of the undisturbed run to the bit")
    problems += check_figures(left, recipe, finished, reference, disk_was_full)
    return problems + check_leftovers(left, network)


def ask(recipe, *arguments):
    command = [recipe.coordinator, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")


def check_witness(left, ledger, recipe, finished):
    owner = {}
    for generation in ledger["generations"]:
        if committed := generation["committed"]:
            for step in range(committed["first"], committed["last"] + 1):
                owner[step] = generation["number"]
    wanted = recipe.steps if finished else ledger["steps_done"]
    if sorted(owner) != list(range(wanted)):
        return [f"{len(owner)} of {wanted} steps are committed"]
    samples, applied, twice = collections.defaultdict(list), set(), set()
    made_up = set()
    for path in left.witness.glob("*.jsonl"):
        computed = collections.defaultdict(set)
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            step = entry["step"]
            if entry.get("kept"):
                # Of a generation that was cut short: this very process must have computed it there.
                if not set(entry["samples"]) <= computed[step]:
                    made_up.add(step)
            else:
                computed[step].update(entry.get("samples", ()))
            if owner.get(step) != entry["generation"]:
                continue  # tried, and void or cut off
            if "samples" in entry:
                samples[step // STEPS_PER_EPOCH] += entry["samples"]
                continue
            # A rank belongs to one process for as long as its generation lasts.
            if (step, entry["rank"]) in applied:
                twice.add(step)
            applied.add((step, entry["rank"]))
    problems = []
    if twice:
        problems.append(f"witness: steps {sorted(twice)[:5]} were applied twice by one rank")
    if made_up:
        problems.append(f"witness: in steps {sorted(made_up)[:5]} gradients were kept that nobody had computed")
    if missing := sorted(set(owner) - {step for step, _ in applied}):
        problems.append(f"witness: steps {missing[:5]} were applied by nobody")
    for epoch in range(-(-wanted // STEPS_PER_EPOCH)):
        whole = (epoch + 1) * STEPS_PER_EPOCH <= wanted
        found = sorted(samples[epoch])
        if found != list(range(TRAIN)) if whole else len(found) != len(set(found)):
            problems.append(
                f"witness: epoch {epoch} holds {len(found)} samples of {TRAIN}, {len(set(found))} of them different"
            )
    return problems


def check_figures(left, recipe, finished, reference, disk_was_full):
    try:
        maps = left.maps()
    except (ValueError, OSError, KeyError) as problem:
        return [f"the figures cannot be read: {problem}"]
    due = range(STEPS_PER_EPOCH, recipe.steps + 1, STEPS_PER_EPOCH)
    missing = [step for step in due if step not in maps]
    # What could not be written is gone with a coordinator that is killed then.
    if finished and missing and not disk_was_full:
        return [f"figures: the evaluations after steps {missing[:5]} have none"]
    known = reference["maps"] if reference is not None else maps
    differ = [step for step, found in maps.items() if known.get(step) != found]
    return [f"figures: after steps {differ[:5]} they are not those of the undisturbed run"] if differ else []


def check_replicas(left):
    """Ranks report a hash of their state every few steps: one step of one generation has one."""
    problems, seen = [], {}
    try:
        for line in left.texts("events.jsonl"):
            report = line.get("report") or {}
            if state := report.get("state_hash"):
                key = (line["generation"], report["step"])
                if seen.setdefault(key, state) != state:
                    problems.append(f"replicas: the states after step {key[1]} of generation {key[0]} differ")
        if "replicas differ" in left.output.read_text(errors="replace"):
            problems.append("replicas: the coordinator found that they differ")
    except OSError as problem:
        problems.append(f"replicas: {problem}")
    if not seen:
        problems.append("replicas: nobody reported a hash of its state")
    return problems[:3]


def check_leftovers(left, network):
    problems, names = [], left.names()
    give_up = time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < give_up and (processes_with(names) or (network and network.processes())):
        time.sleep(0.2)
    if running := processes_with(names) or (network.processes() if network else []):
        problems.append(f"processes are left: {running}")
    strays = [path.name for path in left.run_dir.rglob("*") if path.name.endswith(UNFINISHED) or path.is_socket()]
    strays += [path.name for path in left.temporary.rglob("*")]
    if strays:
        problems.append(f"files are left: {strays}")
    return problems


def processes_with(texts):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(text in line for text in texts):
                found.append(f"{entry.name}: {line.strip()[:120]}")
    return found
