"""From SIGKILL of one of three workers to the next committed step, against torchrun --max-restarts."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from lib import BINARIES, ROOT, Result, command_line, draw_scenes, missing

COORDINATOR, WORKER = BINARIES / "coordinator", BINARIES / "worker"
PEER = ROOT / "bench" / "peers" / "peer_recovery.py"
CONFIG = ROOT / "deploy" / "experiments" / "demo.toml"
# Run by its name alone: it takes ten minutes.
BY_NAME_ONLY = True
WORKERS = 3
PATIENCE_SECONDS = 120
SEED = 1


def needs():
    return missing(COORDINATOR, WORKER, CONFIG)


def run(quick):
    patience = 60 if quick else int(os.environ.get("HGAT_PEER_SECONDS", "240"))
    kills, ahead, stuck, peer_kills = (6, 3, 1, 1) if quick else (30, 9, 3, 6)
    ours = our_kills(kills, ahead, stuck)
    peer, failed = peer_recoveries(peer_kills, patience)
    recovered = [kill["next_step"] for kill in ours["kills"]]
    # As many medians of ours as the peer has recoveries, for ratios; alone where it has none.
    group = len(recovered) // max(1, len(peer))
    groups = [statistics.median(recovered[i * group : (i + 1) * group]) for i in range(max(1, len(peer)))]
    peers_row = (
        {"median": round(statistics.median(peer), 4), "p95": max(peer), "unit": "s", "repeats": peer}
        if peer
        else {"value": f"it did not recover once within {patience} s", "unit": ""}
    )

    def row(key, kills="kills"):
        taken = [kill[key] for kill in ours[kills]]
        values = sorted(taken)
        return {
            "median": round(statistics.median(values), 4),
            "p95": round(values[min(len(values) - 1, int(0.95 * len(values)))], 4),
            "unit": "s",
            "repeats": taken,
        }

    return Result(
        name="recovery",
        measured=f"SIGKILL of one of {WORKERS} workers at a random instant to the next committed step, HGAT_FC on "
        f"resnet18 at 64 pixels, six micro-batches of 4 a step, one thread a rank; {len(recovered)} kills of ours, of "
        f"which {sum(kill['leader'] for kill in ours['kills'])} hit rank 0, and {len(peer)} of the peer",
        unit="s",
        higher_is_better=False,
        ours=groups,
        peer=peer or None,
        peer_name="torchrun --max-restarts 3, DistributedDataParallel on Gloo",
        peer_command=command_line(peer_command(), PEER_ENVIRONMENT),
        details={
            "kill to next committed step": row("next_step"),
            "kill to a standing generation of the survivors": row("standing"),
            "kill to the replacement training": row("replaced"),
            # Beside the others: a rank that dies here is ahead of those that have not applied the step yet.
            "kill of a rank that has just applied a step, to the next committed step": row("next_step", "ahead"),
            "of these, kills before any other rank had told of that step": {
                "value": sum(kill["alone"] for kill in ours["ahead"]),
                "unit": f"of {len(ours['ahead'])}",
            },
            "a stuck rank's word that it executes itself again, to its next step": {
                "median": round(statistics.median(ours["again"]), 4),
                "unit": "s",
                "repeats": ours["again"],
            },
            # So that a long one can be understood when the run is gone.
            "the slowest of these, ms since its kill": {"value": ours["slowest"], "unit": ""},
            "an undisturbed step of three workers": {"median": ours["step"], "unit": "s"},
            "a step of two workers": {"median": ours["step_of_two"], "unit": "s"},
            "steps void": {"value": ours["void"], "unit": f"of {ours['steps']}"},
            "samples lost or repeated": {"value": 0 if ours["holds"] else None, "unit": "samples"},
            "peer: kill to its next step": peers_row,
            "peer: launches that a failed restart ended": {"value": failed, "unit": "launches"},
            "peer: steps lost at a kill": {"value": "all since its last checkpoint", "unit": ""},
            "peer: kill to the replacement training": {"value": "the same: all processes are started again", "unit": ""},
        },
    )


def our_kills(count, ahead, stuck):
    """Kills workers of one long run, one after the other: `count` at random instants, and `ahead` as soon as they have
    applied a step (the program's own fault point `committed`). Then, `stuck` times, one when another one's training thread
    has come to a halt, which so cannot leave their generation."""
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        data, run_dir, faults = (Path(folder) / name for name in ("data", "run", "faults"))
        faults.mkdir()
        draw_scenes(data, 480, PATIENCE_SECONDS)
        settings = [
            "train.threads=1", "train.epochs=1000", "train.global_batch=24", "train.micro_batch=4",
            "fault.crashes=1000", "run.evaluate_every_epochs=1000", "run.snapshot_every_epochs=1000",
        ]  # fmt: skip
        command = [COORDINATOR, "start", "--workers", str(WORKERS), "--device", "cpu", "--data", data]
        command += ["--config", CONFIG, "--run-dir", run_dir, "--quiet"]
        for setting in settings:
            command += ["--set", setting]
        with subprocess.Popen(
            command,
            env=os.environ | {"HGAT_FAULTS": str(faults)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            killed = []
            for _ in range(count):
                whole_again(run_dir, process)
                time.sleep(chance.uniform(0.0, 2.0))
                victim = f"worker-{chance.randrange(WORKERS)}"
                pid = json.loads((run_dir / "workers.json").read_text())[victim]["pid"]
                killed.append((victim, time.time()))
                os.kill(pid, signal.SIGKILL)
            for number in range(ahead):
                whole_again(run_dir, process)
                victim = f"worker-{number % WORKERS}"
                killed.append((victim, met(faults, victim, "committed", "kill")))
            for _ in range(stuck):
                whole_again(run_dir, process)
                met(faults, "worker-1", "added-up", "hang")
                os.kill(json.loads((run_dir / "workers.json").read_text())["worker-2"]["pid"], signal.SIGKILL)
                whole_again(run_dir, process)
            whole_again(run_dir, process)
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        ledger = subprocess.run(
            [COORDINATOR, "ledger", "--json", "--run-dir", run_dir], capture_output=True, text=True, check=False
        )
        ledger = json.loads(ledger.stdout)
        events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    began = events[0]["began_unix_ms"] / 1000
    steps = step_times(events)
    kills = [follow(events, began, victim, at) for victim, at in killed]
    kills, at_commit = kills[:count], kills[count:]
    slowest = max(range(count), key=lambda kill: kills[kill]["next_step"])
    return {
        "kills": kills,
        "ahead": at_commit,
        "again": [executed_again(events, event) for event in events if event.get("class") == "restart"],
        "slowest": timeline(events, began, killed[slowest][1], kills[slowest]["next_step"]),
        "step": round(statistics.median(steps[WORKERS]), 4),
        "step_of_two": round(statistics.median(steps[WORKERS - 1]), 4),
        "void": sum(void["steps"]["last"] - void["steps"]["first"] + 1 for void in ledger["void"]),
        "steps": ledger["steps_done"],
        "holds": ledger["holds"],
    }


def met(faults, victim, point, action):
    """Has a fault done to a worker when it next comes by a point of the program, and says when that was: the instant at
    which it took the file that told it to, as the file system knows it (to some milliseconds)."""
    taken = faults / f"{victim}.{point}.taken"
    taken.unlink(missing_ok=True)
    laid = faults / "laid"
    laid.write_text(action)
    laid.rename(faults / f"{victim}.{point}")
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not taken.exists():
        if time.monotonic() > give_up:
            raise RuntimeError(f"{victim} did not come by {point} within {PATIENCE_SECONDS} s")
        time.sleep(0.01)
    return taken.stat().st_ctime


def whole_again(run_dir, process):
    """Waits until all workers train, and have done so for two steps."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    reached = None
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode}")
        asked = subprocess.run(
            [COORDINATOR, "status", "--json", "--run-dir", run_dir], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            status = json.loads(asked.stdout)
            whole = sum("rank" in worker and worker["rank"] is not None for worker in status["workers"]) == WORKERS
            if status["phase"].lower() == "training" and whole:
                reached = status["step"] if reached is None else reached
                if status["step"] >= reached + 2:
                    return
            else:
                reached = None
        time.sleep(0.2)
    raise RuntimeError(f"the run was not whole again within {PATIENCE_SECONDS} s")


def follow(events, began, victim, killed_at):
    """What came after one kill, in seconds since it."""
    seconds = lambda event: began + event["at_ms"] / 1000 - killed_at  # noqa: E731
    later = [event for event in events if "event" in event and seconds(event) >= -0.001]
    before = [event for event in events if event.get("event") == "progress" and seconds(event) < 0]
    generation = before[-1]["generation"]
    progress = [event for event in later if event["event"] == "progress" and event["generation"] > generation]
    next_generation = progress[0]["generation"]
    ready = [event for event in later if event["event"] == "ready" and event["generation"] == next_generation]
    back = [event for event in progress if event["worker"] == victim]
    # The step that was under way or had just been applied, and who told of it in that generation before the kill.
    step = before[-1]["report"]["step"]
    told = {e["worker"] for e in before if e["generation"] == generation and e["report"]["step"] == step}
    ranks = {event["worker"] for event in events if event.get("event") == "ready" and event["generation"] == generation}
    return {
        "next_step": seconds(progress[0]),
        "standing": seconds(ready[-1]),
        "replaced": seconds(back[0]),
        "leader": victim == min(ranks),
        # It had applied a step that nobody had told of: all reports before are of the step before it.
        "alone": told == ranks,
    }


def executed_again(events, fault):
    """Seconds from a worker's word that it executes itself again to the next step in which it took part."""
    worker, at = fault["worker"], fault["at_ms"]
    later = [e["at_ms"] for e in events if e.get("event") == "progress" and e["worker"] == worker and e["at_ms"] > at]
    return (min(later) - at) / 1000


def timeline(events, began, killed_at, next_step):
    """What the coordinator heard from the commit before a kill to the one after it."""
    lines = []
    for event in (event for event in events if event.get("event", "heartbeat") != "heartbeat"):
        at = began + event["at_ms"] / 1000 - killed_at
        if -0.3 <= at <= next_step + 0.005:
            step = event["report"]["step"] if event["event"] == "progress" else ""
            lines.append(f"{1000 * at:.0f} {event.get('worker', '')} {event['event']} {step}".rstrip())
    return lines


def step_times(events):
    """Seconds between commits, by the number of ranks."""
    times, last = {WORKERS: [], WORKERS - 1: []}, {}
    members = {}
    for event in events:
        if event.get("event") == "ready":
            members.setdefault(event["generation"], set()).add(event["worker"])
        if event.get("event") != "progress":
            continue
        generation, step = event["generation"], event["report"]["step"]
        if (generation, step) in last:
            continue
        last[(generation, step)] = event["at_ms"]
        before = last.get((generation, step - 1))
        if before is not None and len(members.get(generation, ())) in times:
            times[len(members[generation])].append((event["at_ms"] - before) / 1000)
    return times


# As shipped torchrun does not recover: its ranks' keys stay in the store that all incarnations share, so that the next
# ones connect to addresses of the dead ("connectFullMesh … Connection refused"). With this every incarnation has a store.
PEER_ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def peer_command():
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORKERS), "--standalone",
        "--max-restarts", "3", str(PEER),
    ]  # fmt: skip


def peer_recoveries(count, patience):
    """Kills ranks of the peer until it has recovered so often or the time is over; also counts launches that ended."""
    chance, recovered, failed = random.Random(SEED), [], 0
    give_up = time.monotonic() + patience
    while len(recovered) < count and time.monotonic() < give_up:
        with subprocess.Popen(
            peer_command(),
            env=os.environ | PEER_ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as process:
            watchdog = threading.Timer(max(1.0, give_up - time.monotonic()), end_tree, (process.pid,))
            watchdog.start()
            try:
                done, over = kill_peers(process, min(3, count - len(recovered)), chance)
                recovered += done
                failed += over and time.monotonic() < give_up
            finally:
                watchdog.cancel()
                end_tree(process.pid)
    return recovered, failed


def end_tree(root):
    """Kills a launcher and the ranks it has started, which are in sessions of their own and would hold its pipe open."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    doomed = {root}
    while more := {pid for pid, parent in parents.items() if parent in doomed} - doomed:
        doomed |= more
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_peers(process, count, chance):
    """Seconds of each recovery in one launch, and whether it ended before it was asked to."""
    pids, recovered = {}, []
    incarnation, steps, killed_at = 0, 0, None
    for line in process.stdout:
        words = line.split()
        if words[:1] == ["pid"]:
            pids[(int(words[2]), int(words[1]))] = int(words[3])
        if words[:1] != ["step"]:
            continue
        if int(words[1]) > incarnation:
            recovered.append(float(words[3]) - killed_at)
            incarnation, steps = int(words[1]), 0
        if len(recovered) == count:
            return recovered, False
        steps += 1
        if steps == 4:
            time.sleep(chance.uniform(0.0, 0.5))
            victim = pids[(incarnation, chance.randrange(WORKERS))]
            killed_at = time.time()
            os.kill(victim, signal.SIGKILL)
    return recovered, True
