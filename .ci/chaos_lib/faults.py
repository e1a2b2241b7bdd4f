"""What is done to a run, how often of a hundred, and when.

A fault is carried out at once; what it returns, if anything, is done after all faults of the same moment.
"""

import dataclasses
import signal
import time
from collections.abc import Callable

from . import tally as shares
from .clock import JUMPS, set_clock
from .recipe import FAULT_TIMEOUT
from .run import STOP_SECONDS, send

# Some end before they are noticed, some last longer than any deadline.
SPELLS = [0.3, 1.0, 2 * FAULT_TIMEOUT, 4 * FAULT_TIMEOUT]
# A step that never ends is given up only after a minute, so a few links between workers stay cut for longer.
LONG_SPELL = 75.0
RATES = ["20mbit", "100mbit", "500mbit"]
MOMENTS = {"any time": 28, "in evaluation": 24, "in a checkpoint": 24, "in recovery": 24}
# An epoch, which ends in an evaluation and a checkpoint, takes about as long.
MOMENT_SECONDS = 10


class Missed(Exception):
    """There was nobody to do it to."""


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    kind: str
    weight: int
    do: Callable


def victim(run, chance):
    living = run.living()
    if not living:
        raise Missed
    name = chance.choice(sorted(living))
    return living[name], int(name.rsplit("-", 1)[1])


def kill_worker(run, chance):
    send(victim(run, chance)[0], signal.SIGKILL)


def kill_leader(run, chance):
    ranks = {worker.get("rank"): worker["worker_id"] for worker in run.status().get("workers", [])}
    pid = run.living().get(ranks.get(0))
    if pid is None:
        raise Missed
    send(pid, signal.SIGKILL)


def stop_worker(run, chance):
    pid, _ = victim(run, chance)
    send(pid, signal.SIGSTOP)
    run.undo.later(chance.choice(SPELLS), lambda: send(pid, signal.SIGCONT))


def terminate_worker(run, chance):
    send(victim(run, chance)[0], signal.SIGTERM)


def terminate_all(run, chance):
    """As when a machine is taken away with notice: everything is told to end at once, and resumed elsewhere."""
    process = run.process
    if process.poll() is not None:
        raise Missed
    everybody = [*run.living().values(), process.pid]
    chance.shuffle(everybody)
    run.told_to_end = True
    for pid in everybody:
        send(pid, signal.SIGTERM)
    pause = chance.uniform(0.0, 3.0)

    def again():
        if run.is_stopped_within(STOP_SECONDS):
            time.sleep(pause)
            run.told_to_end = False
            run.start(resume=True)

    return again


def kill_coordinator(run, chance):
    if run.process.poll() is not None:
        raise Missed
    run.process.kill()
    run.process.wait()
    pause = chance.uniform(0.0, 3.0)

    def again():
        time.sleep(pause)
        run.start(resume=True)

    return again


def stop_coordinator(run, chance):
    process = run.process
    if process.poll() is not None:
        raise Missed
    process.send_signal(signal.SIGSTOP)
    run.undo.later(chance.choice([0.5, *SPELLS[1:]]), lambda: process.send_signal(signal.SIGCONT))


def cut_off(run, chance):
    run.proxies[victim(run, chance)[1]].cut()


def hold_back(run, chance):
    proxy = run.proxies[victim(run, chance)[1]]
    proxy.hold()
    run.undo.later(chance.choice(SPELLS), proxy.release)


def part_two_workers(run, chance):
    one, other = chance.sample(range(run.workers), 2)
    run.network.part(one, other, refuse=chance.random() < 0.3)
    spell = LONG_SPELL if chance.random() < 0.08 else chance.choice(SPELLS)
    run.undo.later(spell, lambda: run.network.join(one, other))


def slow_link(run, chance):
    index = chance.randrange(run.workers)
    run.network.slow(index, chance.choice(RATES))
    run.undo.later(chance.choice(SPELLS), lambda: run.network.fast(index))


def fill_disk(run, chance):
    run.disk.fill(spare=chance.choice([0, 0, 40_000, 30_000_000]))
    run.undo.later(chance.choice(SPELLS), run.disk.free)


def jump_clocks(run, chance):
    clocks = [run.coordinator_clock, *run.worker_clocks]
    for clock in chance.choice([clocks, clocks[:1], [chance.choice(clocks[1:])]]):
        set_clock(clock, chance.choice(JUMPS))


KILL_A_WORKER = Fault("kill a worker", "worker kill", 9, kill_worker)
KILL_THE_COORDINATOR = Fault("kill the coordinator", "coordinator kill", 16, kill_coordinator)
# Those that a recovery follows at once.
FIRST = [KILL_A_WORKER, KILL_A_WORKER, KILL_THE_COORDINATOR]


def faults(network, clocks, disk):
    """Those that this machine allows."""
    known = [
        KILL_A_WORKER,
        Fault("kill the leader", "worker kill", 5, kill_leader),
        Fault("tell a worker to end (SIGTERM)", "SIGTERM", 8, terminate_worker),
        Fault("tell everything to end (SIGTERM)", "SIGTERM", 4, terminate_all),
        KILL_THE_COORDINATOR,
        Fault("stop a worker (SIGSTOP)", "SIGSTOP", 13, stop_worker),
        Fault("stop the coordinator (SIGSTOP)", "SIGSTOP", 8, stop_coordinator),
        Fault("cut a worker off from the coordinator", "network", 5, cut_off),
        Fault("part a worker and the coordinator for a while", "network", 6, hold_back),
    ]
    if network:
        known.append(Fault("part two workers for a while", "network", 7, part_two_workers))
        known.append(Fault("slow link of a worker for a while", "network", 6, slow_link))
    if disk:
        known.append(Fault("full disk for a while", "full disk", 9, fill_disk))
    if clocks:
        known.append(Fault("clock jump", "clock jump", 8, jump_clocks))
    return known


class Disturber:
    """Chooses what is done to a run, and does it."""

    def __init__(self, chance, known, tally, enough):
        self.chance, self.known, self.tally, self.enough = chance, known, tally, enough
        self.done = []

    def __call__(self, run):
        """Waits for a moment and does something; does nothing if the moment does not come."""
        if self.enough():
            time.sleep(0.2)
            return
        # A recovery has to be made by a death, which a run that sees one kind of fault alone must not have.
        moments = [name for name in MOMENTS if name != "in recovery" or len(self.known) > 1]
        weights = [self.tally.weight(MOMENTS[name], self.tally.moments, name, shares.MOMENTS) for name in moments]
        moment = self.chance.choices(moments, weights)[0]
        pause = self.chance.uniform(0.5, 4.0)
        if moment == "any time":
            time.sleep(pause)
        elif moment == "in recovery":
            # A first fault makes one; the next follows while it goes on.
            if not run.wait(lambda status: status.get("phase") == "TRAINING", MOMENT_SECONDS):
                return
            time.sleep(pause / 4)
            self.apply(run, [self.chance.choice(FIRST)], "any time")
            if not run.wait(lambda status: status.get("phase") in ("REGROUPING", "FORMING"), 3, 0.005):
                return
        elif moment == "in evaluation":
            if not run.wait(lambda status: status.get("phase") == "EVALUATING", MOMENT_SECONDS, 0.01):
                return
        elif not run.wait(lambda status: "checkpoint" in str(status.get("deadlines", "")), MOMENT_SECONDS, 0.01):
            return
        self.apply(run, self.choose(), moment)

    def choose(self):
        weights = [self.tally.weight(fault.weight, self.tally.kinds, fault.kind, shares.KINDS) for fault in self.known]
        first = self.chance.choices(self.known, weights)[0]
        if not self.tally.pair_is_due(self.chance) or len(self.known) == 1:
            return [first]
        second = self.chance.choices(self.known, weights)[0]
        # The coordinator cannot be killed twice at once; of workers there are several.
        while second == first and first.kind != "worker kill":
            second = self.chance.choices(self.known, weights)[0]
        return [first, second]

    def apply(self, run, chosen, moment):
        carried_out, afterwards = [], []
        for fault in chosen:
            if run.process.poll() is not None and not afterwards:
                break  # the run ended meanwhile
            try:
                if then := fault.do(run, self.chance):
                    afterwards.append(then)
            except (Missed, OSError):
                continue
            carried_out.append(fault)
        for then in afterwards:
            then()
        if carried_out:
            self.tally.note(carried_out, moment)
            self.done.append((round(time.time(), 1), " and ".join(fault.name for fault in carried_out), moment))
