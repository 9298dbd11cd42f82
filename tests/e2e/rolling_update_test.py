"""Rolling updates of deploy/k8s, played with pods (pods.py): the same options file, the same commands, the same
order of events. Clients stream all along; every answer must be that of a run which nobody disturbs."""

import concurrent.futures
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
sys.path.append(os.path.join(HERE, "..", "chaos"))

from client import Stream, complete, get, wait_tokens  # noqa: E402
from oracle import mixed  # noqa: E402
from pods import Cluster, Pod  # noqa: E402
from processes import eventually  # noqa: E402
from quire_server import BIN, CACHE, MODEL  # noqa: E402

SLOTS = 2
DRAIN = 1  # so short that the update cuts streams off
READY_WITHIN = 90
STOP_WITHIN = 60


class Installation:
    """The programs as the image lays them out, and deploy/k8s's options with this machine's paths."""

    def __init__(self, folder, cluster):
        self.folder, self.cluster = folder, cluster
        self.bin = os.path.join(folder, "bin")
        os.makedirs(self.bin)
        for program in ("quire-coordinator", "quire-worker"):
            os.symlink(os.path.join(BIN, program), os.path.join(self.bin, program))
        container = os.path.join(SOURCE, "deploy", "container")
        shutil.copy(os.path.join(container, "quire-group"), self.bin)
        for name in ("key", "secret"):
            with open(os.path.join(folder, name), "w") as file:
                file.write(f"the {name}\n")
        with open(os.path.join(SOURCE, "deploy", "k8s", "base", "quire.yaml")) as file:
            text = file.read()
        address = cluster.addresses["coordinator"]
        for option, value in {"model": MODEL, "tensor-parallel-size": SLOTS, "max-model-len": 1024,
                              "max-num-seqs": 16, "drain-timeout": DRAIN, "api-key-file": self.path("key"),
                              "worker-secret-file": self.path("secret"), "journal": self.path("journal"),
                              "host": address, "grpc-host": address, "coordinator": f"{address}:50051"}.items():
            text, count = re.subn(rf"^{option}: .*$", f"{option}: {value}", text, flags=re.M)
            assert count == 1, option
        with open(self.path("quire.yaml"), "w") as file:
            file.write(text)
        self.url = f"http://{address}:8000"
        self.env = {"QUIRE_SLOTS": str(SLOTS), "QUIRE_CACHE": CACHE, "TMPDIR": folder,
                    "OMPI_MCA_mca_base_param_files": os.path.join(container, "openmpi-mca-params.conf"),
                    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

    def path(self, name):
        return os.path.join(self.folder, name)

    def coordinator(self):
        return Pod(self.cluster, "coordinator", os.path.join(self.bin, "quire-coordinator"), "--config",
                   self.path("quire.yaml"), env=self.env)

    def workers(self, name):
        return Pod(self.cluster, name, os.path.join(self.bin, "quire-group"), "run", "--config",
                   self.path("quire.yaml"), env=self.env)

    def is_attached(self, pod, groups=1):
        """The readiness probe of a worker pod. Pods that share the loopback device count together."""
        slots = SLOTS * (1 if self.cluster.isolated else groups)
        return pod.run(os.path.join(self.bin, "quire-group"), "ready",
                       env={**self.env, "QUIRE_SLOTS": str(slots)}).returncode == 0

    def status(self, path):
        try:
            return get(self.url, path)[0]
        except OSError:
            return None


def is_cut(stream):
    return None in stream.finish


HEADERS = {"Authorization": "Bearer the key"}


class RollingUpdate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(["coordinator", "old", "new", "client"])
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.enter("client")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.site = Installation(folder.name, self.cluster)
        self.pods = []
        self.addCleanup(lambda: [pod.kill() for pod in self.pods])
        self.coordinator = self.start(self.site.coordinator())
        self.old = self.start(self.site.workers("old"))
        self.wait_ready()
        self.bodies = mixed(6, longest=900)
        with concurrent.futures.ThreadPoolExecutor(len(self.bodies)) as pool:
            self.right = list(pool.map(lambda body: complete(self.site.url, body, HEADERS), self.bodies))

    def start(self, pod):
        self.pods.append(pod)
        return pod

    def wait_ready(self):
        ready = eventually(lambda: self.site.status("/ready") == 200, READY_WITHIN)
        self.assertTrue(ready, "\n".join(line for pod in self.pods for line in pod.log[-15:]))

    def streams(self):
        streams = [Stream(self.site.url, body, headers=HEADERS) for body in self.bodies]
        wait_tokens(streams, 5)
        return streams

    def metric(self, name):
        page = get(self.site.url, "/metrics")[2].decode()
        return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.M))

    def check(self, streams):
        for stream, right in zip(streams, self.right):
            stream.join()
            self.assertEqual(stream.faults, [])
            self.assertEqual(stream.result(), right, stream.describe())

    def test_workers_are_replaced_beside_each_other(self):
        """LeaderWorkerSet with maxSurge 1: the new pods compute beside the old ones, then these go."""
        streams = self.streams()
        new = self.start(self.site.workers("new"))
        self.assertTrue(eventually(lambda: self.site.is_attached(new, groups=2), READY_WITHIN), new.log)
        self.assertTrue(eventually(lambda: self.metric("quire_groups_ready") == 2, 30), new.log)
        self.assertTrue(any(s.thread.is_alive() for s in streams), "every stream ended before the update")
        self.assertEqual(self.old.stop(STOP_WITHIN), 0, self.old.log)
        self.check(streams)  # on the connections that they had
        self.assertEqual(self.metric("quire_groups_ready"), 1)
        self.assertFalse(any(s.broken for s in streams))

    def test_workers_are_replaced_one_after_the_other(self):
        """StatefulSet with OnDelete: the old pods are gone before new ones come; requests wait."""
        streams = self.streams()
        self.assertEqual(self.old.stop(STOP_WITHIN), 0, self.old.log)
        self.assertTrue(eventually(lambda: self.site.status("/ready") == 503, 30))
        self.assertEqual(self.site.status("/health"), 200)  # a coordinator without workers lives
        self.start(self.site.workers("new"))
        self.check(streams)
        self.assertFalse(any(s.broken for s in streams))

    def test_the_coordinator_is_replaced(self):
        """Its pod drains, is cut off, and another takes up its journal; clients resume."""
        streams = self.streams()
        os.kill(self.coordinator.first(), signal.SIGTERM)
        self.assertTrue(eventually(lambda: self.site.status("/ready") != 200, 30))  # no endpoint any more
        self.assertEqual(self.coordinator.process.wait(STOP_WITHIN), 0, self.coordinator.log)
        for stream in streams:
            stream.join(30)  # cut off by name, or by the connection's end
        self.assertTrue(any(is_cut(s) for s in streams), "every stream ended before the update")
        self.coordinator = self.start(self.site.coordinator())
        self.wait_ready()  # the workers, told to leave, have come again
        deadline = time.monotonic() + READY_WITHIN
        while (cut := [s for s in streams if is_cut(s)]) and time.monotonic() < deadline:
            for stream in cut:
                stream.resume().join()
        self.check(streams)
        self.assertEqual(self.coordinator.stop(STOP_WITHIN), 0, self.coordinator.log)


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the network is removed then too
    unittest.main(verbosity=2)
