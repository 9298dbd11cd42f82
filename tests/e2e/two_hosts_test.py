"""`quire serve --hostfile` over two hosts: network namespaces of our own with a cable between them,
each with its own host name. mpirun reaches the other one through an agent that enters the namespace,
so Open MPI and Quire see two machines; nothing is added to the machine's own network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from quire_server import BIN, MODEL, READY_WITHIN, STOP_WITHIN

NAMES = [f"quire-{os.getpid()}-{letter}" for letter in "ab"]
ADDRESSES = ["10.77.0.1", "10.77.0.2"]

# Called by mpirun as: agent [options] ADDRESS COMMAND LINE OF orted
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
case $1 in
%s  *) echo "agent: no host $1" >&2; exit 1 ;;
esac
shift
exec ip netns exec "$name" unshare --uts sh -c 'hostname "$0"; exec sh -c "$1"' "$name" "$*"
"""

# Posts a JSON list of completions at once and prints the list of answers.
CLIENT = """
import concurrent.futures, json, sys, urllib.request
def post(body):
    request = urllib.request.Request(sys.argv[1] + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=90))
bodies = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
    json.dump(list(pool.map(post, bodies)), sys.stdout)
"""

PROMPTS = ["The capital of France is", "def fibonacci(n):", "1 2 3 4 5 6",
           "Once upon a time there was a book whose pages had been numbered by hand. " * 60]

# Bytes each host sends for the long prompt: 900 tokens, 30 layers with two meetings of 576 floats.
LEAST_EXCHANGED = 900 * 30 * 2 * 576 * 4


def run(*argv, timeout=20, **options):
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, **options)


def inside(host, *argv):
    """The command that runs argv on a host; it replaces itself, so its pid is argv's."""
    return ["ip", "netns", "exec", NAMES[host], "unshare", "--uts", "sh", "-c",
            'hostname "$0"; exec "$@"', NAMES[host], *argv]


def pids_on(host):
    return [int(pid) for pid in run("ip", "netns", "pids", NAMES[host]).stdout.split()]


def bytes_sent(host):
    """Over the cable, so far."""
    links = json.loads(run("ip", "-n", NAMES[host], "-s", "-j", "link", "show", "e0").stdout)
    return links[0]["stats64"]["tx"]["bytes"]


def program_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def eventually(condition, seconds):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            return value
        time.sleep(0.05)
    return value


def build_network():
    """None, or why it cannot be built here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "no `ip`; ./deploy/setup.sh --tests installs iproute2"
    for name in NAMES:
        if (made := run("ip", "netns", "add", name)).returncode != 0:
            return f"this machine allows no network namespaces: {made.stderr.strip()}"
    for command in (f"link add e0 netns {NAMES[0]} type veth peer name e0 netns {NAMES[1]}",
                    *(f"-n {name} addr add {address}/24 dev e0" for name, address in zip(NAMES, ADDRESSES)),
                    *(f"-n {name} link set {device} up" for name in NAMES for device in ("lo", "e0"))):
        if (made := run("ip", *command.split())).returncode != 0:
            return f"ip {command}: {made.stderr.strip()}"
    return None


def remove_network():
    for host, name in enumerate(NAMES):
        for pid in pids_on(host):
            os.kill(pid, signal.SIGKILL)
        run("ip", "netns", "del", name)


class TwoHosts:
    """A server on host a whose ranks mpirun puts where the hostfile says."""

    def __init__(self, folder, slots, *options):
        agent = os.path.join(folder, "agent.sh")
        with open(agent, "w") as file:
            file.write(AGENT % "".join(f"  {address}) name={name} ;;\n"
                                       for name, address in zip(NAMES, ADDRESSES)))
        os.chmod(agent, 0o755)
        hostfile = os.path.join(folder, "hosts")
        with open(hostfile, "w") as file:
            file.writelines(f"{a} slots={n}\n" for a, n in zip(ADDRESSES, slots) if n > 0)
        secret = os.path.join(folder, "secret")
        with open(secret, "w") as file:
            file.write("between us\n")
        # Workers of another host must reach the coordinator, over a cable that nobody else is on.
        self.process = subprocess.Popen(
            inside(0, os.path.join(BIN, "quire"), "serve", MODEL, "--served-model-name", "smollm2",
                   "--tensor-parallel-size", str(sum(slots)), "--hostfile", hostfile, "--host", ADDRESSES[0], "--port", "0",
                   "--grpc-host", ADDRESSES[0], "--grpc-port", "0", "--grpc-insecure-private-network",
                   "--worker-secret-file", secret, "--max-model-len", "1536", "--max-num-seqs", "8", *options),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMPI_MCA_plm_rsh_agent": agent, "TMPDIR": folder})  # Open MPI's files too
        self.log, self.http = [], None
        self.readers = [threading.Thread(target=self.read, args=(stream,), daemon=True)
                        for stream in (self.process.stdout, self.process.stderr)]
        for reader in self.readers:
            reader.start()
        ready = eventually(lambda: self.find(r"coordinator ready http=(\S+)") or self.ended(), READY_WITHIN)
        if not ready or self.ended():
            self.close()
            raise RuntimeError("the server did not become ready:\n" + "\n".join(self.log))
        self.http = ready[1]

    def read(self, stream):
        for line in stream:
            self.log.append(line.rstrip())

    def find(self, pattern, count=1):
        """The count-th match in the log so far."""
        found = [match for line in list(self.log) if (match := re.search(pattern, line))]
        return found[count - 1] if len(found) >= count else None

    def ended(self):
        return self.process.poll() is not None

    def complete(self, host, prompts=PROMPTS):
        """Token texts and logprobs of greedy answers, asked for at once from a host."""
        bodies = [{"model": "smollm2", "prompt": prompt, "max_tokens": 24,
                   "temperature": 0, "logprobs": 0} for prompt in prompts]
        done = run(*inside(host, sys.executable, "-c", CLIENT, self.http), input=json.dumps(bodies),
                   timeout=120)
        assert done.returncode == 0, done.stderr
        answers = [answer["choices"][0]["logprobs"] for answer in json.loads(done.stdout)]
        return [(answer["tokens"], answer["token_logprobs"]) for answer in answers]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STOP_WITHIN)
        except subprocess.TimeoutExpired:
            return None

    def close(self):
        """Also after a failure: its children die with it."""
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Hostfile(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def serve(self, *slots):
        server = TwoHosts(self.folder.name, slots)
        self.addCleanup(server.close)
        return server

    def stop(self, server):
        self.assertEqual(server.stop(), 0, "\n".join(server.log))
        for host, name in enumerate(NAMES):
            self.assertTrue(eventually(lambda: not pids_on(host), 10),
                            f"left on {name}: {[program_of(pid) for pid in pids_on(host)]}")
        left = [file for file in os.listdir("/dev/shm") if any(name in file for name in NAMES)]
        self.assertEqual(left, [])

    def workers_on(self, host):
        return [pid for pid in pids_on(host) if program_of(pid) == "quire-worker"]

    def test_tokens_are_those_of_one_host(self):
        alone = self.serve(1)
        expected = alone.complete(0)
        self.stop(alone)
        self.assertTrue(all(len(tokens) == 24 for tokens, _ in expected), expected)
        for slots in ((1, 1), (1, 2)):
            with self.subTest(slots=slots):
                server = self.serve(*slots)
                self.assertEqual([len(self.workers_on(host)) for host in (0, 1)], list(slots))
                self.assertTrue(server.find(f"epoch 1: {sum(slots)} ranks on {', '.join(NAMES)}"), server.log)
                sent = [bytes_sent(host) for host in (0, 1)]
                self.assertEqual(server.complete(0), expected)
                # The hosts share a /dev/shm here, but not their ranks: the partial sums of every
                # prompt token of the long prompt went over the cable, both ways.
                for host in (0, 1):
                    self.assertGreater(bytes_sent(host) - sent[host], LEAST_EXCHANGED)
                self.assertEqual(server.complete(1), expected)
                self.stop(server)

    def test_a_worker_killed_on_the_other_host_comes_back(self):
        server = self.serve(1, 2)
        expected = server.complete(0)
        os.kill(self.workers_on(1)[0], signal.SIGKILL)
        self.assertTrue(eventually(lambda: server.find("epoch 2 is ready"), 60), server.log)
        self.assertEqual(server.complete(1), expected)
        self.stop(server)

    def test_a_cut_cable_ends_the_group_and_a_mended_one_brings_it_back(self):
        server = self.serve(1, 1)
        expected = server.complete(0)
        old = self.workers_on(1)
        run("ip", "-n", NAMES[1], "link", "set", "e0", "down")
        # Nobody can tell the far rank to end: its lease runs out, and its host's daemon gives up.
        self.assertTrue(eventually(lambda: not set(old) & set(self.workers_on(1)), 60), server.log)
        self.assertTrue(eventually(lambda: server.find("the worker group ended"), 60), server.log)
        run("ip", "-n", NAMES[1], "link", "set", "e0", "up")
        self.assertTrue(eventually(lambda: server.find(r"epoch \d+ is ready", 2), 90), server.log)
        self.assertEqual(server.complete(0), expected)
        self.stop(server)


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the network is removed then too
    try:
        if reason := build_network():
            print(f"SKIPPED: {reason}")
            sys.exit(77)
        unittest.main(verbosity=2)
    finally:
        if os.geteuid() == 0 and shutil.which("ip"):
            remove_network()
