"""Several hosts on one machine: network namespaces on a bridge of their own, each with its host name, so
that Open MPI and Quire see machines. Nothing is added to the machine's own network, and close() takes
everything away again. Needs root."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess

CLONE_NEWNET = 0x40000000

# Called by mpirun as: agent [options] ADDRESS COMMAND LINE OF orted
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
case $1 in
%s  *) echo "agent: no host $1" >&2; exit 1 ;;
esac
shift
exec ip netns exec "$name" unshare --uts sh -c 'hostname "$0"; exec sh -c "$1"' "$name" "$*"
"""


class Unavailable(Exception):
    """Why there can be no such hosts here."""


def run(*argv, timeout=20, **options):
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **options)


def program_of(pid):
    """The kernel cuts names to 15."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Hosts:
    """`slots`: how many ranks each host of the hostfile takes. Files go into `folder`."""

    def __init__(self, folder, slots):
        if os.geteuid() != 0:
            raise Unavailable("network namespaces need root")
        if not shutil.which("ip"):
            raise Unavailable("no `ip`; ./deploy/setup.sh --tests installs iproute2")
        prefix = f"quire-{os.getpid()}-"
        self.names = [prefix + "abcdefgh"[i] for i in range(len(slots))]
        self.addresses = [f"10.77.0.{i + 1}" for i in range(len(slots))]
        self.switch = prefix + "switch"
        for name in [*self.names, self.switch]:
            if (made := run("ip", "netns", "add", name)).returncode != 0:
                self.close()
                raise Unavailable(f"this machine allows no network namespaces: {made.stderr.strip()}")
        self.ip(f"-n {self.switch} link add br0 type bridge")
        self.ip(f"-n {self.switch} link set br0 up")
        for i, (name, address) in enumerate(zip(self.names, self.addresses)):
            self.ip(f"link add e0 netns {name} type veth peer name p{i} netns {self.switch}")
            self.ip(f"-n {self.switch} link set p{i} master br0 up")
            self.ip(f"-n {name} addr add {address}/24 dev e0")
            for device in ("lo", "e0"):
                self.ip(f"-n {name} link set {device} up")
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

    def ip(self, command):
        if (done := run("ip", *command.split())).returncode != 0:
            self.close()
            raise Unavailable(f"ip {command}: {done.stderr.strip()}")

    def inside(self, host):
        """What a command line begins with to run on a host; its pid is the command's."""
        return ["ip", "netns", "exec", self.names[host], "unshare", "--uts", "sh", "-c",
                'hostname "$0"; exec "$@"', self.names[host]]

    def serve(self):
        """Options and environment of a `quire serve` on host 0 with ranks on all. Workers of other
        hosts must reach the coordinator, over cables that nobody else is on."""
        return (["--hostfile", self.hostfile, "--host", self.addresses[0], "--grpc-host", self.addresses[0],
                 "--grpc-insecure-private-network", "--worker-secret-file", self.secret],
                {"OMPI_MCA_plm_rsh_agent": self.agent})

    @contextlib.contextmanager
    def entered(self, host):
        """This thread, and those that it starts, talk from a host."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.names[host]}") as there:
            enter(there)
            try:
                yield
            finally:
                enter(home)

    def pids(self, host, program=None):
        """Of processes on a host; only of one program, if named."""
        found = map(int, run("ip", "netns", "pids", self.names[host]).stdout.split())
        return [pid for pid in found if program in (None, program_of(pid))]

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
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self):
        for host, name in enumerate(self.names):
            self.signal(host, signal.SIGKILL)
            run("ip", "netns", "del", name)
        run("ip", "netns", "del", self.switch)
