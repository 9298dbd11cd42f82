"""Network namespaces on a bridge of their own, an address each. Nothing is added to the machine's own
network, and close() takes everything away again. Needs root."""

import ctypes
import json
import os
import shutil
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "chaos"))
from processes import kill  # noqa: E402

CLONE_NEWNET = 0x40000000


class Unavailable(Exception):
    """Why there can be no such network here."""


def run(*argv, timeout=20, **options):
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **options)


class Bridge:
    """`names`: of the places; `network`: what their addresses begin with, such as "10.77.0."."""

    def __init__(self, names, network):
        if os.geteuid() != 0:
            raise Unavailable("network namespaces need root")
        if not shutil.which("ip"):
            raise Unavailable("no `ip`; ./deploy/setup.sh --tests installs iproute2")
        self.prefix = f"quire-{os.getpid()}-"
        self.addresses = {name: f"{network}{i + 1}" for i, name in enumerate(names)}
        switch = self.namespace("switch")
        if (made := run("ip", "netns", "add", switch)).returncode != 0:
            raise Unavailable(f"this machine allows no network namespaces: {made.stderr.strip()}")
        self.ip(f"-n {switch} link add br0 type bridge")
        self.ip(f"-n {switch} link set br0 up")
        for i, (name, address) in enumerate(self.addresses.items()):
            namespace = self.namespace(name)
            self.ip(f"netns add {namespace}")
            self.ip(f"link add e0 netns {namespace} type veth peer name p{i} netns {switch}")
            self.ip(f"-n {switch} link set p{i} master br0 up")
            self.ip(f"-n {namespace} addr add {address}/24 dev e0")
            for device in ("lo", "e0"):
                self.ip(f"-n {namespace} link set {device} up")

    def namespace(self, name):
        return self.prefix + name

    def ip(self, command):
        if (done := run("ip", *command.split())).returncode != 0:
            self.close()
            raise RuntimeError(f"ip {command}: {done.stderr.strip()}")

    def enter(self, name):
        """This thread, and those that it starts, talk from that place."""
        with open(f"/run/netns/{self.namespace(name)}") as file:
            set_network(file)

    def pids(self, name):
        """Of the processes there."""
        return list(map(int, run("ip", "netns", "pids", self.namespace(name)).stdout.split()))

    def close(self):
        for line in json.loads(run("ip", "-j", "netns", "list").stdout or "[]"):
            if not line["name"].startswith(self.prefix):
                continue
            for pid in self.pids(line["name"].removeprefix(self.prefix)):
                if pid != os.getpid():  # we may be in one
                    kill(pid)
            run("ip", "netns", "del", line["name"])


def set_network(namespace):
    """Of this thread, to that of an open namespace file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
