"""deploy/Dockerfile for real, without an engine: its steps in chroots (chroot_image.py), then containers of the
result as a runtime makes them: read-only root, the image's user, no capability, namespaces of their own. One
serves by itself; three are the pods of a cluster, whose worker group reaches over ssh. Takes minutes: the
programs are compiled anew. QUIRE_IMAGE_VARIANT=cuda makes the other image, which takes a few minutes longer, and
fetches CUDA's compiler: it then holds the backend and all that it links, and serves on the CPU."""

import base64
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path += [os.path.join(HERE, "..", "..", room) for room in ("e2e", "chaos")]

try:
    import yaml
    from chroot_image import Image
except ImportError as missing:
    print(f"SKIPPED: {missing}; ./deploy/setup.sh --tests installs it")
    sys.exit(77)
from pods import Cluster, Pod  # noqa: E402
from processes import eventually  # noqa: E402
from quire_server import CACHE, MODEL  # noqa: E402

VARIANT = os.environ.get("QUIRE_IMAGE_VARIANT", "cpu")
READY_WITHIN = 120
STOP_WITHIN = 60
PODS = ["alone", "coordinator", "quire-worker-0", "quire-worker-1", "client"]
BODY = {"model": "smollm2", "prompt": "A quire is a set of pages that", "max_tokens": 64, "temperature": 0,
        "ignore_eos": True, "return_token_ids": True}
KEYS = "/etc/quire"  # where Secrets and the options are mounted

# As a runtime starts a container: $0 its name, $ROOT the image, $VOLUMES lines of "source target".
START = """set -e
hostname "$0"
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"; mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -t tmpfs -o uid=10001,gid=10001 tmpfs "$ROOT/var/cache/quire"
echo "$VOLUMES" | while read -r source target; do [ -z "$source" ] || mount --bind "$source" "$ROOT$target"; done
mount -o remount,bind,ro "$ROOT"
exec chroot "$ROOT" /usr/bin/setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \
  --bounding-set=-all "$@" """


class Containers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="quire-image-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.folder = folder
        cls.image = Image(SOURCE, folder, CACHE, {"VARIANT": VARIANT})
        root = cls.image.root
        for path in ("/models/model", "/etc/hosts"):
            open(root + path, "a").close()
        for path in ("config", "api", "worker", "ssh"):
            os.makedirs(f"{root}{KEYS}/{path}")
        cls.cluster = Cluster(PODS)
        cls.addClassCleanup(cls.cluster.close)
        if not cls.cluster.isolated:
            raise unittest.SkipTest("this machine allows no network namespaces")
        names = {name: [name] for name in PODS} | {"coordinator": ["coordinator", "quire-coordinator"]}
        with open(os.path.join(folder, "hosts"), "w") as file:
            file.write("127.0.0.1 localhost\n")
            for name, address in cls.cluster.addresses.items():
                file.write(f"{address} {' '.join(names[name])} {name}.quire-worker\n")
        cls.cluster.enter("client")
        cls.answers = []

    def setUp(self):
        self.pods = []
        self.addCleanup(lambda: [pod.kill() for pod in self.pods])

    def start(self, name, *command, volumes=(), env=None):
        state = os.path.join(self.folder, "state-" + name)
        os.makedirs(state, exist_ok=True)
        os.chown(state, 10001, 10001)
        mounts = [(MODEL, "/models/model"), (os.path.join(self.folder, "hosts"), "/etc/hosts"),
                  (state, "/var/lib/quire"), *volumes]
        pod = Pod(self.cluster, name, *command, start=START, env={
            **self.image.environment, **(env or {}), "ROOT": self.image.root,
            "VOLUMES": "\n".join(f"{source} {target}" for source, target in mounts)})
        self.pods.append(pod)
        return pod

    def exec(self, pod, *command, env=None):
        """As `docker exec` and exec probes do."""
        argv = ["nsenter", "--target", str(pod.first()), "--all", "--root", "--", "/usr/bin/setpriv", "--reuid",
                "10001", "--regid", "10001", "--clear-groups", *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, env={**os.environ, **(env or {})})

    def ask(self, name, key=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"http://{self.cluster.addresses[name]}:8000/v1/completions",
                                         json.dumps(BODY).encode(), headers)
        return json.load(urllib.request.urlopen(request, timeout=300))["choices"][0]["token_ids"]

    def tail(self):
        return "\n".join(line for pod in self.pods for line in [f"-- {pod.name}", *pod.log[-25:]])

    def is_ready(self, name):
        try:
            return urllib.request.urlopen(f"http://{self.cluster.addresses[name]}:8000/ready", timeout=5).status == 200
        except OSError:
            return False

    def in_image(self, *command):
        argv = ["unshare", "--mount", "sh", "-c", 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"', self.image.root]
        return subprocess.run([*argv, *command], capture_output=True, text=True)

    def test_1_the_image_has_what_it_needs_and_no_more(self):
        root = self.image.root
        programs = ["quire", "quire-supervisor", "quire-coordinator", "quire-worker"]
        if VARIANT == "cuda":
            programs.append("libquire_cuda.so")
            self.assertIn("no NVIDIA driver", self.in_image("/usr/local/bin/quire-worker", "--list-devices").stdout)
        for program in programs:
            linked = self.in_image("ldd", f"/usr/local/bin/{program}")
            self.assertEqual(linked.returncode, 0, linked.stderr)
            self.assertNotIn("not found", linked.stdout)
        self.assertEqual(os.path.exists(root + "/usr/local/bin/libquire_cuda.so"), VARIANT == "cuda")
        self.assertFalse([f for f in os.listdir(root + "/etc/ssh") if f.startswith("ssh_host_")])
        for compiler in ("/usr/bin/g++", "/usr/bin/cmake", "/src"):
            self.assertFalse(os.path.exists(root + compiler), compiler)
        kib = int(subprocess.run(["du", "-sxk", root], capture_output=True, text=True).stdout.split()[0])
        base = int(subprocess.run(["du", "-sxk", self.image.base()], capture_output=True, text=True).stdout.split()[0])
        print(f"the image adds {(kib - base) >> 10} MiB to a base of {base >> 10} MiB")
        self.assertLess(kib - base, {"cpu": 400, "cuda": 1000}[VARIANT] << 10)

    def test_2_one_container_serves(self):
        command = json.loads(self.image.settings["entrypoint"]) + json.loads(self.image.settings["cmd"])
        check = json.loads(self.image.settings["healthcheck"].split("CMD", 1)[1])
        pod = self.start("alone", *command, "--tensor-parallel-size", "2", "--served-model-name", "smollm2",
                         "--max-model-len", "512", "--max-num-seqs", "8")
        self.assertTrue(eventually(lambda: self.is_ready("alone"), READY_WITHIN), self.tail())
        self.assertEqual(self.exec(pod, *check).returncode, 0)
        self.answers.append(self.ask("alone"))
        self.assertEqual(len(self.answers[0]), BODY["max_tokens"])

        running = self.exec(pod, "/bin/sh", "-c", "for p in /proc/[0-9]*; do echo $(cat $p/comm) $(stat -c %u $p); done")
        found = [line.split() for line in running.stdout.splitlines() if line.startswith(("quire", "mpirun"))]
        self.assertEqual({user for _, user in found}, {"10001"}, running.stdout)
        self.assertEqual(self.exec(pod, "cat", "/proc/1/comm").stdout.strip(), "quire-supervisor"[:15])
        self.assertNotEqual(self.exec(pod, "touch", "/usr/local/bin/x").returncode, 0)
        self.assertIn("CapBnd:\t0000000000000000", self.exec(pod, "cat", "/proc/1/status").stdout)

        # A coordinator that does not answer is not healthy.
        coordinator = self.exec(pod, "/bin/sh", "-c", "grep -l ^quire-coordinat /proc/[0-9]*/comm").stdout.split("/")[2]
        self.exec(pod, "/bin/sh", "-c", f"kill -STOP {coordinator}")
        self.assertNotEqual(self.exec(pod, *check).returncode, 0)
        self.exec(pod, "/bin/sh", "-c", f"kill -CONT {coordinator}")
        self.assertTrue(eventually(lambda: self.exec(pod, *check).returncode == 0, READY_WITHIN), self.tail())
        self.assertEqual(pod.stop(STOP_WITHIN), 0, self.tail())

    def secrets(self):
        """secrets.sh's, as files that a pod's group may read: what kubelet makes of them."""
        made = subprocess.run([os.path.join(SOURCE, "deploy", "k8s", "secrets.sh")], capture_output=True, text=True,
                              check=True).stdout
        mounts = []
        for secret in yaml.safe_load_all(made):
            name = secret["metadata"]["name"].removeprefix("quire-")
            where = os.path.join(self.folder, "secret-" + name)
            os.makedirs(where, exist_ok=True)
            for key, value in secret["data"].items():
                path = os.path.join(where, key)
                with open(path, "wb") as file:
                    file.write(base64.b64decode(value))
                os.chown(path, 0, 10001)
                os.chmod(path, 0o440)
            mounts.append((where, f"{KEYS}/{name}"))
        return mounts

    def config(self):
        where = os.path.join(self.folder, "config")
        os.makedirs(where, exist_ok=True)
        with open(os.path.join(SOURCE, "deploy", "k8s", "base", "quire.yaml")) as file:
            options = yaml.safe_load(file)
        options |= {"tensor-parallel-size": 2, "served-model-name": "smollm2", "max-model-len": 512, "max-num-seqs": 8}
        with open(os.path.join(where, "quire.yaml"), "w") as file:
            yaml.safe_dump(options, file)
        return (where, f"{KEYS}/config")

    def test_3_a_group_over_two_pods_serves_and_recovers(self):
        volumes = [*self.secrets(), self.config()]
        options = ["--config", f"{KEYS}/config/quire.yaml"]
        self.start("coordinator", "/usr/local/bin/quire-coordinator", *options, volumes=volumes)
        group = {"QUIRE_SLOTS": "1", "QUIRE_PODS": "2", "QUIRE_LEADER": "quire-worker-0.quire-worker"}
        workers = [self.start(f"quire-worker-{i}", "/usr/local/bin/quire-group", "run", *options, volumes=volumes,
                              env={**group, "HOSTNAME": f"quire-worker-{i}"}) for i in range(2)]
        self.assertTrue(eventually(lambda: self.is_ready("coordinator"), READY_WITHIN), self.tail())
        ready = lambda pod: self.exec(pod, "/usr/local/bin/quire-group", "ready", env=group).returncode == 0
        self.assertTrue(all(ready(pod) for pod in workers))
        with open(os.path.join(self.folder, "secret-api", "key")) as file:
            key = file.read()
        self.answers.append(self.ask("coordinator", key))

        # The far rank dies: mpirun ends, and quire-group starts the group again.
        rank = self.exec(workers[1], "/bin/sh", "-c", "grep -l ^quire-worker /proc/[0-9]*/comm").stdout.split("/")[2]
        self.exec(workers[1], "/bin/sh", "-c", f"kill -KILL {rank}")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:  # it may come before the loss, or wait for its end
            self.answers.append(pool.submit(self.ask, "coordinator", key).result(READY_WITHIN))
        self.assertTrue(eventually(lambda: all(ready(pod) for pod in workers), READY_WITHIN), self.tail())
        self.assertIn("starting it again", "\n".join(workers[0].log))
        self.answers.append(self.ask("coordinator", key))
        self.assertEqual([a for a in self.answers if a != self.answers[0]], [])

        # Nobody gets in by ssh without the key.
        stranger = self.exec(workers[0], "ssh", "-p", "2222", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                             "-o", "UserKnownHostsFile=/dev/null", "quire-worker-1.quire-worker", "true")
        self.assertNotEqual(stranger.returncode, 0)
        self.assertIn("Permission denied", stranger.stderr)
        for pod in (workers[0], workers[1], self.pods[0]):
            self.assertIsNotNone(pod.stop(STOP_WITHIN), self.tail())


def reason_to_skip():
    if os.geteuid() != 0:
        return "chroots need root"
    for program in ("debootstrap", "ip", "unshare", "nsenter"):
        if not shutil.which(program):
            return f"no {program}; ./deploy/setup.sh --tests installs it"
    if not os.path.exists(MODEL):
        return f"no demo model at {MODEL}; ./deploy/setup.sh fetches it"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        return "this machine allows no namespaces"
    return None


if __name__ == "__main__":
    if reason := reason_to_skip():
        print(f"SKIPPED: {reason}")
        sys.exit(77)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    unittest.main(verbosity=2)
