"""Two hosts on one machine: network namespaces with a cable between them and host names of their
own, so that Open MPI and Quire see two machines. Nothing is added to the machine's own network, and
close() takes everything away again."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess

from case import Skipped
from processes import send, stat

ADDRESSES = ["10.77.1.1", "10.77.1.2"]

# Called by mpirun as: agent [options] ADDRESS COMMAND LINE OF orted
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
case $1 in
%s  *) echo "agent: no host $1" >&2; exit 1 ;;
esac
shift
exec ip netns exec "$name" unshare --uts sh -c 'hostname "$0"; exec sh -c "$1"' "$name" "$*"
"""


def run(*argv, timeout=20):
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


class TwoHosts:
    def __init__(self, folder, slots=(1, 1)):
        if os.geteuid() != 0:
            raise Skipped("network namespaces need root")
        if not shutil.which("ip"):
            raise Skipped("no `ip`; ./deploy/setup.sh --tests installs iproute2")
        self.names = [f"quire-chaos-{os.getpid()}-{letter}" for letter in "ab"]
        for name in self.names:
            if (made := run("ip", "netns", "add", name)).returncode != 0:
                self.close()
                raise Skipped(f"this machine allows no network namespaces: {made.stderr.strip()}")
        a, b = self.names
        self.ip(f"link add e0 netns {a} type veth peer name e0 netns {b}")
        for name, address in zip(self.names, ADDRESSES):
            self.ip(f"-n {name} addr add {address}/24 dev e0")
            for device in ("lo", "e0"):
                self.ip(f"-n {name} link set {device} up")
        self.agent = os.path.join(folder, "agent.sh")
        with open(self.agent, "w") as file:
            file.write(AGENT % "".join(f"  {address}) name={name} ;;\n"
                                       for name, address in zip(self.names, ADDRESSES)))
        os.chmod(self.agent, 0o755)
        self.secret = os.path.join(folder, "secret")
        with open(self.secret, "w") as file:
            file.write("between us\n")
        self.hostfile = os.path.join(folder, "hosts")
        with open(self.hostfile, "w") as file:
            file.writelines(f"{address} slots={n}\n" for address, n in zip(ADDRESSES, slots))

    def ip(self, command):
        if (done := run("ip", *command.split())).returncode != 0:
            self.close()
            raise Skipped(f"ip {command}: {done.stderr.strip()}")

    def inside(self, host):
        """What a command line begins with to run on a host; its pid is the command's."""
        return ["ip", "netns", "exec", self.names[host], "unshare", "--uts", "sh", "-c",
                'hostname "$0"; exec "$@"', self.names[host]]

    def serve(self):
        """Options and environment of a server on host 0 with ranks on both."""
        return (["--hostfile", self.hostfile, "--host", ADDRESSES[0], "--grpc-host", ADDRESSES[0],
                 "--grpc-insecure-private-network", "--worker-secret-file", self.secret],
                {"OMPI_MCA_plm_rsh_agent": self.agent})

    @contextlib.contextmanager
    def entered(self, host):
        """This thread, and those that it starts, talk from a host."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.names[host]}") as there:
            enter(there.fileno())
            try:
                yield
            finally:
                enter(home.fileno())

    def pids(self, host):
        return [int(pid) for pid in run("ip", "netns", "pids", self.names[host]).stdout.split()]

    def workers(self, host):
        return [pid for pid in self.pids(host) if (found := stat(pid)) and found[0] == "quire-worker"]

    def cut(self):
        run("ip", "-n", self.names[1], "link", "set", "e0", "down")

    def mend(self):
        run("ip", "-n", self.names[1], "link", "set", "e0", "up")

    def slow_down(self, rate):
        """What host 1 sends, to this rate (such as 1mbit)."""
        done = run("tc", "-n", self.names[1], "qdisc", "add", "dev", "e0", "root", "tbf", "rate", rate,
                   "burst", "32kbit", "latency", "400ms")
        if done.returncode != 0:
            raise Skipped(f"tc: {done.stderr.strip()}")

    def bytes_sent(self, host):
        links = json.loads(run("ip", "-n", self.names[host], "-s", "-j", "link", "show", "e0").stdout)
        return links[0]["stats64"]["tx"]["bytes"]

    def close(self):
        for host, name in enumerate(self.names):
            for pid in self.pids(host):
                send(pid, signal.SIGKILL)
            run("ip", "netns", "del", name)
