"""Pods played by processes. With root, each pod is a set of namespaces of its own (network, PIDs, host name,
mounts, its own /dev/shm) on one bridge; its command is process 1 there, and nothing is added to the
machine's own network. Without root, pods are plain processes that share the loopback device."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading

from bridge import Bridge, Unavailable
from processes import eventually

START = """hostname "$0"; ip link set lo up 2>/dev/null; mount -t tmpfs tmpfs /dev/shm && exec "$@" """


class Cluster:
    """Pods by name, each with an address. close() ends and removes everything."""

    def __init__(self, names):
        self.bridge = None
        if shutil.which("unshare"):
            with contextlib.suppress(Unavailable):
                self.bridge = Bridge(names, "10.78.0.")
        self.isolated = self.bridge is not None
        self.addresses = self.bridge.addresses if self.isolated else dict.fromkeys(names, "127.0.0.1")

    def inside(self, name, start=START):
        """What a command line begins with; `start` is a script that gets host name and command."""
        if not self.isolated:
            return []
        return ["ip", "netns", "exec", self.bridge.namespace(name), "unshare", "--uts", "--ipc", "--pid", "--fork",
                "--kill-child", "--mount-proc", "sh", "-c", start, name]

    def enter(self, name):
        """This thread, and those that it starts, talk from a pod."""
        if self.isolated:
            self.bridge.enter(name)

    def close(self):
        if self.isolated:
            self.bridge.close()


class Pod:
    """A container's command in a pod of the cluster; what it says is kept."""

    def __init__(self, cluster, name, *command, env, start=START):
        self.cluster, self.name = cluster, name
        self.process = subprocess.Popen([*cluster.inside(name, start), *command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        errors="replace", env={**os.environ, **env})
        self.log = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.log.append(line.rstrip())
        self.process.stdout.close()

    def says(self, words, seconds=60):
        return eventually(lambda: any(words in line for line in list(self.log)), seconds)

    def first(self):
        """The pid of process 1 of the pod, as it is outside."""
        if not self.cluster.isolated:
            return self.process.pid
        def child():
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
                return file.read().split()
        return int(eventually(child, 10)[0])

    def run(self, *command, env):
        """Another command in the pod, as an exec probe is: its result."""
        argv = list(command)
        if self.cluster.isolated:
            argv = ["nsenter", "--target", str(self.first()), "--net", "--pid", "--mount", "--", *argv]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, env={**os.environ, **env})

    def stop(self, seconds):
        """As the kubelet does: its exit code, None if it had to be killed."""
        os.kill(self.first(), signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join(10)
