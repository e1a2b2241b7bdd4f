"""One run: a coordinator and its workers, started so that each can be disturbed, and driven to its end."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from .check import Left, processes_with
from .clock import set_clock
from .disk import Disk
from .network import Proxy

# An undisturbed run takes about a minute; whatever is not over by then waits for something that does not come.
PATIENCE_SECONDS = 600
# After a request to stop.
STOP_SECONDS = 60
RESUMABLE = 75
USAGE = 64


class Undo:
    """What has to be put back: after a while, or when the run is over."""

    def __init__(self):
        self.lock, self.open = threading.Lock(), {}

    def later(self, seconds, function):
        key = object()
        timer = threading.Timer(seconds, self.now, (key,))
        timer.daemon = True
        with self.lock:
            self.open[key] = (function, timer)
        timer.start()

    def now(self, key):
        with self.lock:
            function, timer = self.open.pop(key, (None, None))
        if function:
            timer.cancel()
            function()

    def all(self):
        for key in list(self.open):
            self.now(key)


class Run:
    def __init__(self, folder, recipe, workers, world, network, clocks):
        self.folder, self.recipe, self.workers, self.world = folder, recipe, workers, world
        self.network, self.clocks, self.undo = network, clocks, Undo()
        folder.mkdir()
        self.disk = Disk.mount(folder / "disk")
        self.left = Left(
            run_dir=folder / "disk" / "run", witness=folder / "witness", output=folder / "output.log",
            temporary=folder / "tmp",
        )  # fmt: skip
        self.run_dir = self.left.run_dir
        self.left.witness.mkdir()
        self.left.temporary.mkdir()
        host = network.gateway if network else "127.0.0.1"
        self.proxies = [Proxy(self.run_dir, host) for _ in range(workers)]
        self.coordinator_clock = folder / "clock-coordinator"
        self.worker_clocks = [folder / f"clock-{index}" for index in range(workers)]
        for clock in self.worker_clocks:
            set_clock(clock, 0)
        self.wrapper = folder / "worker"
        self.wrapper.write_text(self.wrapper_script())
        self.wrapper.chmod(0o755)
        self.process, self.seconds, self.stopped, self.went_on = None, 0.0, False, 0
        self.told_to_end = False  # everything was, and what has come of it was not seen to
        self.output = self.left.output.open("ab")

    def wrapper_script(self):
        """The worker with the network and the clock that have its number. `exec` keeps the process id."""
        host = self.network.gateway if self.network else "127.0.0.1"
        ports = " ".join(str(proxy.port) for proxy in self.proxies)
        inside = f"ip netns exec hgat{self.network.number}-$number" if self.network else ""
        return f"""#!/bin/bash
ports=({ports})
arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
        --worker-id) number="${{2#worker-}}"; arguments+=("$1" "$2"); shift 2 ;;
        --coordinator | --run-dir) shift 2 ;;
        *) arguments+=("$1"); shift ;;
    esac
done
export CHAOS_CLOCK='{self.folder}/clock-'"$number"
exec {inside} '{self.recipe.worker}' "${{arguments[@]}}" --coordinator "http://{host}:${{ports[number]}}"
"""

    # ---- its life

    def start(self, resume):
        command = [self.recipe.coordinator, "start", "--run-dir", self.run_dir, "--worker-binary", self.wrapper]
        if resume:
            command.append("--resume")
        else:
            command += ["--workers", str(self.workers), "--data", self.recipe.data, "--device", "cpu"]
            for setting in self.recipe.settings(self.world):
                command += ["--set", setting]
        environment = {**os.environ, "HGAT_WITNESS": str(self.left.witness), "TMPDIR": str(self.left.temporary)}
        if self.clocks:
            environment.update(self.clocks.environment(self.coordinator_clock))
        self.process = subprocess.Popen(command, stdout=self.output, stderr=self.output, env=environment)

    def go(self, disturb, stop_at):
        """Runs to the end; returns what did not hold on the way. `disturb()` does one thing, or waits a little. At
        `stop_at` the run is asked to stop."""
        began, problems = time.monotonic(), []
        self.start(resume=False)
        try:
            while True:
                code = self.process.poll()
                if code is not None:
                    if not self.goes_on(code, problems):
                        break
                elif time.monotonic() - began > PATIENCE_SECONDS:
                    problems.append(f"it did not end within {PATIENCE_SECONDS} s: {self.status().get('reason')}")
                    break
                elif time.monotonic() > stop_at:
                    problems += self.stop()
                    break
                else:
                    disturb()
        finally:
            self.seconds = time.monotonic() - began
            self.undo.all()
            self.disk.free()
            for proxy in self.proxies:
                proxy.release()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        return problems

    def goes_on(self, code, problems):
        """Whether a coordinator that ended is started again: only a full disk is a reason to end early."""
        if code == 0 and self.told_to_end and self.has_ended("stopped"):
            # Its coordinator was killed meanwhile, and the next one found workers that were told to end.
            self.told_to_end = False
            self.start(resume=True)
            return True
        if code == 0 or len(problems) > 3:
            return False
        if code == USAGE and self.has_ended("finished"):
            return False  # killed when it had done everything, and resumed
        if not self.disk.is_to_blame():
            problems.append(f"exit code {code}")
            return False
        if code != RESUMABLE:
            problems.append(f"with a full disk it ended with exit code {code} and not {RESUMABLE}")
        self.disk.free()
        self.went_on += 1
        self.start(resume=True)
        return True

    def is_stopped_within(self, seconds):
        """Waits for a coordinator that was told to end; whether it did, in a way to go on from, with something left to do.
        What ended otherwise, or not at all, is found by whoever looks after the run."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if code not in (0, RESUMABLE):
            return False
        return self.has_ended("stopped")

    def has_ended(self, how):
        """By its summary. On a full disk there is none; where there should be one, whoever looks after the run misses it."""
        try:
            return json.loads((self.run_dir / "summary.json").read_text())["ended"] == how
        except FileNotFoundError:
            return False

    def stop(self):
        """Time is up: a checkpoint at the next step boundary, and everyone leaves."""
        self.undo.all()
        self.disk.free()
        self.stopped = True
        self.process.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return [f"it did not stop within {STOP_SECONDS} s: {self.status().get('reason')}"]
        return [] if code == 0 else [f"told to stop, it ended with exit code {code}"]

    def close(self):
        """Frees what it holds outside its folder. What is left of it is reported already, and ended here."""
        for proxy in self.proxies:
            proxy.close()
        for line in processes_with(self.left.names()):
            send(int(line.split(":")[0]), signal.SIGKILL)
        self.output.close()
        self.disk.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what can be seen of it

    def status(self):
        command = [self.recipe.coordinator, "status", "--json", "--run-dir", self.run_dir]
        try:
            # A coordinator that is stopped does not answer.
            asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1)
            status = json.loads(asked.stdout)
        except (ValueError, subprocess.TimeoutExpired):
            return {}
        status["phase"] = str(status.get("phase", "")).upper()
        return status

    def wait(self, condition, seconds, pause=0.05):
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            if condition(self.status()):
                return True
            time.sleep(pause)
        return False

    def living(self):
        """Process ids of workers by name, as far as they run. A number that somebody else has by now is none."""
        try:
            known = json.loads((self.run_dir / "workers.json").read_text())
        except (OSError, ValueError):
            return {}
        return {name: process["pid"] for name, process in known.items() if self.is_worker(process["pid"])}

    def is_worker(self, pid):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return "--worker-id" in line and (str(self.wrapper) in line or str(self.recipe.worker) in line)


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
