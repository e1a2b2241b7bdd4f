"""The network of the workers: a namespace each, on one bridge, and a proxy each between it and the coordinator.

Workers find the coordinator at the bridge's address, where their proxies listen; so their own addresses are those of
their namespaces, and what they tell each other goes over the bridge. Where namespaces are unavailable the proxies
listen on the loopback address, and links between workers are not disturbed.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import threading
from pathlib import Path

# Nobody has this address: what is sent there is lost without a word.
NOBODY = "02:00:00:00:00:01"


class Namespaces:
    def __init__(self, count):
        self.names, self.number = [], None
        sweep()
        for number in random.SystemRandom().sample(range(256), 16):
            # Adding a link is atomic: whoever has the bridge has the number.
            if ip("link", "add", f"hgat-br{number}", "type", "bridge").returncode == 0:
                self.number = number
                break
        if self.number is None:
            raise OSError("no bridge can be made")
        self.bridge = f"hgat-br{self.number}"
        try:
            self.set_up(count)
        except OSError:
            self.close()
            raise

    def set_up(self, count):
        # Says whose it is, should this process be killed.
        must("link", "set", self.bridge, "alias", f"pid {os.getpid()}")
        must("addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        must("link", "set", self.bridge, "up")
        for index in range(count):
            name, port = f"hgat{self.number}-{index}", f"hgat{self.number}p{index}"
            must("netns", "add", name)
            self.names.append(name)
            must("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            must("link", "set", port, "master", self.bridge, "up")
            must("-n", name, "addr", "add", f"{self.address(index)}/24", "dev", "eth0")
            must("-n", name, "link", "set", "lo", "up")
            must("-n", name, "link", "set", "eth0", "up")

    @staticmethod
    def make(count):
        """None, and the reason, where that cannot be."""
        if os.geteuid() != 0:
            return None, "only root may make them"
        if not shutil.which("ip") or not shutil.which("tc"):
            return None, "there is no ip or tc (iproute2)"
        try:
            return Namespaces(count), None
        except OSError as problem:
            return None, str(problem)

    @property
    def gateway(self):
        return f"10.231.{self.number}.1"

    def address(self, index):
        return f"10.231.{self.number}.{10 + index}"

    def part(self, one, other, refuse):
        """Between two workers nothing passes any more: without a word, or refused where it is sent."""
        for here, there in ((one, other), (other, one)):
            if refuse:
                ip("-n", self.names[here], "route", "replace", "blackhole", f"{self.address(there)}/32")
            else:
                command = ["neigh", "replace", self.address(there), "lladdr", NOBODY, "nud", "permanent", "dev", "eth0"]
                ip("-n", self.names[here], *command)

    def join(self, one, other):
        for here, there in ((one, other), (other, one)):
            ip("-n", self.names[here], "route", "del", "blackhole", f"{self.address(there)}/32")
            ip("-n", self.names[here], "neigh", "del", self.address(there), "dev", "eth0")

    def slow(self, index, rate):
        command = ["qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64k", "latency", "400ms"]
        tc("-n", self.names[index], *command)

    def fast(self, index):
        tc("-n", self.names[index], "qdisc", "del", "dev", "eth0", "root")

    def processes(self):
        """Ids of all processes in them."""
        return [pid for name in self.names for pid in ip("netns", "pids", name).stdout.split()]

    def close(self):
        for index, name in enumerate(self.names):
            # The link first: a namespace takes its own with it only later.
            ip("link", "del", f"hgat{self.number}p{index}")
            ip("netns", "del", name)
        ip("link", "del", self.bridge)
        self.names = []


def sweep():
    """Removes what a process that was killed has left behind."""
    for link in json.loads(ip("-json", "link", "show", "type", "bridge").stdout or "[]"):
        name, owner = link.get("ifname", ""), link.get("ifalias", "").removeprefix("pid ")
        if name.startswith("hgat-br") and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            number = name.removeprefix("hgat-br")
            for namespace in json.loads(ip("-json", "netns", "list").stdout or "[]"):
                if namespace["name"].startswith(f"hgat{number}-"):
                    ip("netns", "del", namespace["name"])
            ip("link", "del", name)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def must(*arguments):
    done = ip(*arguments)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def tc(*arguments):
    subprocess.run(["tc", *arguments], capture_output=True, check=False)


class Proxy:
    """Stands between one worker and the coordinator: forwards, holds back, or cuts."""

    def __init__(self, run_dir, host):
        self.run_dir, self.held, self.pairs = run_dir, threading.Event(), []
        self.held.set()
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                down, _ = self.listener.accept()
            except OSError:
                return
            try:
                address = json.loads((self.run_dir / "coordinator.json").read_text())["address"]
                host, port = address.removeprefix("http://").rsplit(":", 1)
                up = socket.create_connection((host, int(port)), timeout=5)
                up.settimeout(None)
                for end in (down, up):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except (OSError, ValueError):
                down.close()
                continue
            self.pairs = [pair for pair in self.pairs if pair[0].fileno() >= 0] + [(down, up)]
            for source, sink in ((down, up), (up, down)):
                threading.Thread(target=self.forward, args=(source, sink), daemon=True).start()

    def forward(self, source, sink):
        try:
            while data := source.recv(65536):
                self.held.wait()
                sink.sendall(data)
        except OSError:
            pass
        # The end of a connection is a message too.
        self.held.wait()
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def cut(self):
        for pair in self.pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def hold(self):
        self.held.clear()

    def release(self):
        self.held.set()

    def close(self):
        self.release()
        # A thread that waits in accept() is not woken by closing alone.
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.cut()
