"""That the check can fail: one defect at a time is put into copies of what a run left, and each must be reported."""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys

from .check import check


def prove(left, recipe, folder, reference):
    """Prints a line for each defect; returns those that the check passed over. `left` must hold."""
    missed = []
    for name, expected, put in DEFECTS:
        copy = copy_of(left, folder)
        with contextlib.ExitStack() as stack:
            put(copy, stack)
            problems = check(copy, recipe, reference=reference)
        found = [problem for problem in problems if expected in problem]
        if found:
            print(f"chaos: proof: {name}: reported ({found[0][:110]})", flush=True)
        else:
            print(f"chaos: proof: {name}: NOT reported, only {problems}", flush=True)
            missed.append(name)
        shutil.rmtree(folder)
    return missed


def copy_of(left, folder):
    """Files are linked, since checkpoints are large; `change` takes care of that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy = dataclasses.replace(
        left, run_dir=folder / "run", witness=folder / "witness", output=folder / "output.log",
        temporary=folder / "tmp",
    )  # fmt: skip
    for mine, its in ((left.run_dir, copy.run_dir), (left.witness, copy.witness), (left.temporary, copy.temporary)):
        shutil.copytree(mine, its, symlinks=True, copy_function=link_or_copy)
    shutil.copy2(left.output, copy.output)
    return copy


def link_or_copy(source, target, **_):
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def change(path, how):
    """Replaces a file by a changed one, so that what it was linked from stays."""
    data = path.read_bytes()
    changed = how(data)
    if changed == data:
        raise ValueError(f"nothing to change in {path}")
    path.unlink()
    path.write_bytes(changed)


def change_line(paths, wanted, how):
    """Changes the first line for which `wanted` holds."""
    for path in sorted(paths):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if wanted(value):
                new = [json.dumps(changed, separators=(",", ":")) for changed in how(value)]
                lines[number : number + 1] = new
                change(path, lambda _: ("\n".join(lines) + "\n").encode())
                return
    raise ValueError("no such line")


# ---- defects


def last_generation(copy):
    """The newest in the witness, which surely belongs to the lineage."""
    numbers = [
        json.loads(line)["generation"]
        for path in copy.witness.glob("*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    return max(numbers)


def witness_line(copy, key, how):
    newest = last_generation(copy)
    change_line(copy.witness.glob("*.jsonl"), lambda line: key in line and line["generation"] == newest, how)


def lose_witness_line(copy, _):
    witness_line(copy, "samples", lambda _: [])


def change_sample(copy, _):
    witness_line(copy, "samples", lambda line: [{**line, "samples": [*line["samples"][:-1], line["samples"][0]]}])


def keep_what_is_not_there(copy, _):
    witness_line(copy, "samples", lambda line: [{**line, "kept": True}])


def repeat_step(copy, _):
    witness_line(copy, "applied", lambda line: [line, line])


def change_ledger(copy, _):
    """Its newest text and those before it: the first step was done by nobody."""
    change(copy.run_dir / "run.redb", lambda data: data.replace(b'"committed":{"first":0,', b'"committed":{"first":1,'))


def change_state_hash(copy, _):
    def other(line):
        report = line["report"]
        turned = report["state_hash"][::-1]
        return [{**line, "report": {**report, "state_hash": turned if turned != report["state_hash"] else "0"}}]

    events = [copy.run_dir / "events.jsonl"]
    change_line(events, lambda line: (line.get("report") or {}).get("state_hash"), other)


def change_decision(copy, _):
    events = [copy.run_dir / "events.jsonl"]
    change_line(events, lambda line: "decided" in line, lambda line: [{**line, "decided": "0" * 16}])


def lose_heartbeat(copy, _):
    events = [copy.run_dir / "events.jsonl"]
    change_line(events, lambda line: line.get("event") == "heartbeat", lambda line: [])


def change_checkpoint(copy, _):
    """One bit in the middle of a tensor, which stays a finite number."""

    def flip(data):
        middle = len(data) // 2 // 4 * 4
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    change(copy.run_dir / "checkpoints" / "last" / "model.safetensors", flip)


def change_figures(copy, how):
    def other(data):
        summary = json.loads(data)
        summary["evaluations"] = how(summary["evaluations"])
        return json.dumps(summary).encode()

    change(copy.run_dir / "summary.json", other)


def lose_figures(copy, _):
    change_figures(copy, lambda known: known[1:])


def change_map(copy, _):
    change_figures(copy, lambda known: [{**known[0], "map": known[0]["map"] / 2}, *known[1:]])


def leave_file(copy, _):
    (copy.run_dir / "summary.json.tmp").write_text("")


def leave_temporary_file(copy, _):
    (copy.temporary / "left-behind").write_text("")


def leave_socket(copy, stack):
    # Relative, since the name of a socket has a hundred bytes at most.
    here = os.getcwd()
    os.chdir(copy.run_dir)
    try:
        stack.enter_context(socket.socket(socket.AF_UNIX)).bind("left.sock")
    finally:
        os.chdir(here)


def leave_process(copy, stack):
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(copy.run_dir)]
    process = subprocess.Popen(command)
    stack.callback(process.wait)
    stack.callback(process.kill)


# What is put in, what the report must contain, and how.
DEFECTS = [
    ("a line of a witness is lost", "witness: epoch", lose_witness_line),
    ("gradients were kept that nobody had computed", "gradients were kept", keep_what_is_not_there),
    ("a sample was trained on instead of another", "witness: epoch", change_sample),
    ("a step was applied twice", "applied twice", repeat_step),
    ("the ledger lacks a step", "ledger: ", change_ledger),
    ("a replica's state differs", "replicas: the states", change_state_hash),
    ("another decision was made", "replay", change_decision),
    ("an event that decided nothing is lost", "lines are missing", lose_heartbeat),
    ("a byte of a checkpoint is another", "checkpoints", change_checkpoint),
    ("the last checkpoint is not the undisturbed run's", "undisturbed", change_checkpoint),
    ("an evaluation has no figures", "have none", lose_figures),
    ("an evaluation's mAP is another", "figures: after steps", change_map),
    ("an unfinished file is left", "files are left", leave_file),
    ("a temporary file is left", "files are left", leave_temporary_file),
    ("a socket is left", "files are left", leave_socket),
    ("a process is left", "processes are left", leave_process),
]
