"""Several hosts on one machine: network namespaces on a bridge (bridge.py), each with its host name, so
that Open MPI and Quire see machines. Needs root."""

import contextlib
import json
import os
import signal

from bridge import Bridge, Unavailable, run, set_network
from processes import send

LETTERS = "abcdefgh"  # a host's place on the bridge

# Called by mpirun as: agent [options] ADDRESS COMMAND LINE OF orted
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
case $1 in
%s  *) echo "agent: no host $1" >&2; exit 1 ;;
esac
shift
exec ip netns exec "$name" unshare --uts sh -c 'hostname "$0"; exec sh -c "$1"' "$name" "$*"
"""


def program_of(pid):
    """The kernel cuts names to 15."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


class Hosts:
    """`slots`: how many ranks each host of the hostfile takes. Files go into `folder`."""

    def __init__(self, folder, slots):
        letters = LETTERS[:len(slots)]
        try:
            self.bridge = Bridge(letters, "10.77.0.")
        except RuntimeError as why:
            raise Unavailable(str(why)) from why
        self.names = [self.bridge.namespace(letter) for letter in letters]
        self.addresses = list(self.bridge.addresses.values())
        places = "".join(f"  {a}) name={n} ;;\n" for n, a in zip(self.names, self.addresses))
        self.agent = self.write(folder, "agent.sh", AGENT % places)
        os.chmod(self.agent, 0o755)
        self.secret = self.write(folder, "secret", "between us\n")
        self.hostfile = self.write(folder, "hosts", "".join(
            f"{address} slots={n}\n" for address, n in zip(self.addresses, slots) if n > 0))

    @staticmethod
    def write(folder, name, text):
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def inside(self, host):
        """What a command line begins with to run on a host; its pid is the command's."""
        return ["ip", "netns", "exec", self.names[host], "unshare", "--uts", "sh", "-c",
                'hostname "$0"; exec "$@"', self.names[host]]

    def open(self):
        """Options of a coordinator on host 0 with ranks on all. Workers of other hosts must reach it, over
        cables that nobody else is on."""
        return ["--host", self.addresses[0], "--grpc-host", self.addresses[0],
                "--grpc-insecure-private-network", "--worker-secret-file", self.secret]

    def serve(self):
        """Options of a `quire serve` on host 0 with ranks on all."""
        return ["--hostfile", self.hostfile, *self.open()]

    def mpi(self):
        """Environment in which mpirun reaches all hosts."""
        return {"OMPI_MCA_plm_rsh_agent": self.agent}

    @contextlib.contextmanager
    def entered(self, host):
        """This thread, and those that it starts, talk from a host."""
        with open("/proc/thread-self/ns/net") as home:
            self.bridge.enter(LETTERS[host])
            try:
                yield
            finally:
                set_network(home)

    def pids(self, host, program=None):
        """Of processes on a host; only of one program, if named."""
        return [pid for pid in self.bridge.pids(LETTERS[host]) if program in (None, program_of(pid))]

    def workers(self, host):
        return self.pids(host, "quire-worker")

    def cut(self, host=1):
        run("ip", "-n", self.names[host], "link", "set", "e0", "down")

    def mend(self, host=1):
        run("ip", "-n", self.names[host], "link", "set", "e0", "up")

    def slow_down(self, rate, host=1):
        """What a host sends, to this rate (such as 1mbit)."""
        done = run("tc", "-n", self.names[host], "qdisc", "add", "dev", "e0", "root", "tbf", "rate", rate,
                   "burst", "32kbit", "latency", "400ms")
        if done.returncode != 0:
            raise Unavailable(f"tc: {done.stderr.strip()}")

    def bytes_sent(self, host):
        """Over its cable, so far."""
        links = json.loads(run("ip", "-n", self.names[host], "-s", "-j", "link", "show", "e0").stdout)
        return links[0]["stats64"]["tx"]["bytes"]

    def lose(self, host):
        """As when its power fails: nobody answers, and no connection is closed."""
        self.cut(host)
        self.signal(host, signal.SIGSTOP)

    def power_up(self, host):
        """A lost one: nothing runs there."""
        self.signal(host, signal.SIGKILL)
        self.mend(host)

    def signal(self, host, number):
        for pid in self.pids(host):
            send(pid, number)

    def close(self):
        self.bridge.close()
