"""`quire serve` as the first process of a container: a PID namespace in which it is process 1, so that
every orphan becomes its child, and stays a zombie unless it collects it."""

import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
import urllib.request

from quire_server import MODEL, Server

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
if os.geteuid() != 0:
    NAMESPACE[1:1] = ["--user", "--map-root-user"]


def below(root):
    """{pid: (name, state)} of everything below root."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        state, parent = rest.split()[:2]
        parents[int(pid)] = (int(parent), name, state)
    found, frontier = {}, {root}
    while frontier:
        frontier = {pid for pid, (parent, _, _) in parents.items() if parent in frontier and pid not in found}
        found.update((pid, parents[pid][1:]) for pid in frontier)
    return found


def eventually(condition, seconds):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


class FirstProcess(unittest.TestCase):
    def test_it_collects_orphans_and_obeys_signals(self):
        server = Server(inside=NAMESPACE)
        self.addCleanup(server.process.kill)
        inside = lambda: below(server.process.pid)
        named = lambda name: [pid for pid, (found, state) in inside().items()
                              if found == name[:15] and state != "Z"]  # the kernel cuts names
        workers = named("quire-worker")
        self.assertEqual(len(workers), 2)
        os.kill(named("mpirun")[0], signal.SIGKILL)  # its ranks die as orphans
        self.assertTrue(eventually(lambda: len(now := named("quire-worker")) == 2 and not set(now) & set(workers), 60))

        def ready():
            try:
                return urllib.request.urlopen(server.http + "/ready", timeout=5).status == 200
            except OSError:
                return False
        self.assertTrue(eventually(ready, 60))
        zombies = lambda: {pid: found for pid, found in inside().items() if found[1] == "Z"}
        self.assertTrue(eventually(lambda: not zombies(), 10), zombies())

        os.kill(named("quire-supervisor")[0], signal.SIGTERM)  # a runtime stops process 1
        self.assertEqual(server.process.wait(timeout=60), 0)


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        print("SKIPPED: this machine allows no PID namespaces")
        sys.exit(77)
    unittest.main(verbosity=2)
