"""`quire serve` as the first process of a container: a PID namespace in which it is process 1, so that
every orphan becomes its child, and stays a zombie unless it collects it."""

import os
import shutil
import signal
import subprocess
import sys
import unittest
import urllib.request

from quire_server import MODEL, Server

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "chaos"))
import processes  # noqa: E402
from processes import eventually  # noqa: E402

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
if os.geteuid() != 0:
    NAMESPACE[1:1] = ["--user", "--map-root-user"]


class FirstProcess(unittest.TestCase):
    def test_it_collects_orphans_and_obeys_signals(self):
        server = Server(inside=NAMESPACE)
        self.addCleanup(server.process.kill)
        named = lambda name: processes.named(server.process.pid, name)
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
        zombies = lambda: {pid: found for pid, found in processes.descendants(server.process.pid).items()
                           if found[1] == "Z"}
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
