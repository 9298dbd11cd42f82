"""A server over two and three hosts (hosts.py), by `quire serve --hostfile` and by its two programs started
by hand: mpirun reaches the others through an agent that enters their namespaces. Tokens are those of one host, and what breaks is replaced."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from bridge import Unavailable, run
from hosts import Hosts, program_of
from processes import eventually
from quire_server import BIN, MODEL, READY_WITHIN, STOP_WITHIN

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


class HostsServer:
    """A server on the first host whose ranks mpirun puts where the hostfile says: `quire serve`, or, by
    hand, a coordinator and an mpirun of workers."""

    def __init__(self, hosts, folder, num_ranks, by_hand=False):
        self.hosts, self.folder = hosts, folder
        self.log, self.processes, self.readers = [], [], []
        shape = ["--max-model-len", "1536", "--max-num-seqs", "8"]
        server = [MODEL, "--served-model-name", "smollm2", "--tensor-parallel-size", str(num_ranks),
                  "--port", "0", "--grpc-port", "0", *shape]
        try:
            if by_hand:
                self.start("quire-coordinator", *server, *hosts.open())
                listening = self.wait(r"coordinator listening http=\S+ grpc=(\S+)")
                self.start("mpirun", "--hostfile", hosts.hostfile, "-np", str(num_ranks), "--bind-to", "none",
                           os.path.join(BIN, "quire-worker"), MODEL, "--coordinator", listening[1],
                           "--worker-secret-file", hosts.secret, *shape)
            else:
                self.start("quire", "serve", *server, *hosts.serve())
            self.http = self.wait(r"coordinator ready http=(\S+)")[1]
        except RuntimeError:
            self.close()
            raise

    def start(self, program, *argv):
        program = os.path.join(BIN, program) if program.startswith("quire") else program
        process = subprocess.Popen(
            [*self.hosts.inside(0), program, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **self.hosts.mpi(), "TMPDIR": self.folder,  # Open MPI's files too
                 "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
        self.processes.append(process)
        for stream in (process.stdout, process.stderr):
            self.readers.append(threading.Thread(target=self.read, args=(stream,), daemon=True))
            self.readers[-1].start()

    def wait(self, pattern):
        found = eventually(lambda: self.find(pattern) or self.ended(), READY_WITHIN)
        if not found or self.ended():
            raise RuntimeError(f"no line like {pattern}:\n" + "\n".join(self.log))
        return found

    def read(self, stream):
        for line in stream:
            self.log.append(line.rstrip())

    def find(self, pattern, count=1):
        """The count-th match in the log so far."""
        found = [match for line in list(self.log) if (match := re.search(pattern, line))]
        return found[count - 1] if len(found) >= count else None

    def ended(self):
        return any(process.poll() is not None for process in self.processes)

    def complete(self, host, prompts=PROMPTS):
        """Token texts and logprobs of greedy answers, asked for at once from a host."""
        bodies = [{"model": "smollm2", "prompt": prompt, "max_tokens": 24,
                   "temperature": 0, "logprobs": 0, "ignore_eos": True} for prompt in prompts]
        done = run(*self.hosts.inside(host), sys.executable, "-c", CLIENT, self.http,
                   input=json.dumps(bodies), timeout=120)
        assert done.returncode == 0, done.stderr
        answers = [answer["choices"][0]["logprobs"] for answer in json.loads(done.stdout)]
        return [(answer["tokens"], answer["token_logprobs"]) for answer in answers]

    def stop(self):
        """Asks the first program to; the others leave by themselves. Returns their exit codes."""
        self.processes[0].send_signal(signal.SIGTERM)
        try:
            return [process.wait(timeout=STOP_WITHIN) for process in self.processes]
        except subprocess.TimeoutExpired:
            return None

    def close(self):
        """Also after a failure: their children die with them."""
        for process in self.processes:
            process.kill()
            process.wait()
        for reader in self.readers:
            reader.join()
        for process in self.processes:
            process.stdout.close()
            process.stderr.close()


class HostfileTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def serve(self, *slots, by_hand=False):
        hosts = Hosts(self.folder.name, slots)
        self.addCleanup(hosts.close)
        server = HostsServer(hosts, self.folder.name, sum(slots), by_hand)
        self.addCleanup(server.close)
        return server

    def stop(self, server):
        self.assertEqual(server.stop(), [0] * len(server.processes), "\n".join(server.log))
        hosts = server.hosts
        for host, name in enumerate(hosts.names):
            self.assertTrue(eventually(lambda: not hosts.pids(host), 10),
                            f"left on {name}: {[program_of(pid) for pid in hosts.pids(host)]}")
        left = [file for file in os.listdir("/dev/shm") if any(name in file for name in hosts.names)]
        self.assertEqual(left, [])
        server.close()
        hosts.close()

    def test_tokens_are_those_of_one_host(self):
        alone = self.serve(1, 0)
        expected = alone.complete(0)
        self.stop(alone)
        self.assertTrue(all(len(tokens) == 24 for tokens, _ in expected), expected)
        for slots, by_hand in (((1, 1), False), ((1, 2), False), ((1, 1, 1), False), ((1, 2), True)):
            with self.subTest(slots=slots, by_hand=by_hand):
                server = self.serve(*slots, by_hand=by_hand)
                hosts = server.hosts
                every = range(len(slots))
                self.assertEqual([len(hosts.workers(host)) for host in every], list(slots))
                self.assertTrue(server.find(f"epoch 1: {sum(slots)} ranks on {', '.join(hosts.names)}"), server.log)
                sent = [hosts.bytes_sent(host) for host in every]
                self.assertEqual(server.complete(0), expected)
                # The hosts share a /dev/shm here, but not their ranks: the partial sums of every
                # prompt token of the long prompt went over each cable.
                for host in every:
                    self.assertGreater(hosts.bytes_sent(host) - sent[host], LEAST_EXCHANGED)
                self.assertEqual(server.complete(1), expected)
                self.stop(server)

    def replaced(self, server, harm, mend=lambda: None):
        """The answers are the same in the group after the harm."""
        expected = server.complete(0)
        harm()
        harmed = time.monotonic()
        self.assertTrue(eventually(lambda: server.find("the worker group ended"), 60), server.log)
        print(f"noticed after {time.monotonic() - harmed:.1f} s", end=" ", file=sys.stderr)
        mend()
        self.assertTrue(eventually(lambda: server.find(r"epoch \d+ is ready", 2), 90), server.log)
        self.assertEqual(server.complete(0), expected)
        self.stop(server)

    def test_a_worker_killed_on_another_host_comes_back(self):
        server = self.serve(1, 2)
        self.replaced(server, lambda: os.kill(server.hosts.workers(1)[0], signal.SIGKILL))

    def test_a_killed_daemon_takes_its_ranks_with_it_and_all_come_back(self):
        server = self.serve(1, 1, 1)
        [daemon] = server.hosts.pids(2, "orted")
        self.replaced(server, lambda: os.kill(daemon, signal.SIGKILL))

    def test_a_lost_host_ends_the_group_and_it_comes_back_with_the_host(self):
        server = self.serve(1, 1, 1)
        self.replaced(server, lambda: server.hosts.lose(2), lambda: server.hosts.power_up(2))

    def test_a_cut_cable_ends_the_group_and_a_mended_one_brings_it_back(self):
        server = self.serve(1, 1)
        old = server.hosts.workers(1)

        def cut():
            server.hosts.cut()
            # Nobody can tell the far rank to end: its lease runs out, and its host's daemon gives up.
            self.assertTrue(eventually(lambda: not set(old) & set(server.hosts.workers(1)), 60), server.log)

        self.replaced(server, cut, lambda: server.hosts.mend())


if __name__ == "__main__":
    if not os.path.exists(MODEL):
        print(f"SKIPPED: no demo model at {MODEL}; ./deploy/setup.sh fetches it")
        sys.exit(1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the namespaces are removed then too
    try:
        with tempfile.TemporaryDirectory() as folder:
            Hosts(folder, (1,)).close()
    except Unavailable as why:
        print(f"SKIPPED: {why}")
        sys.exit(77)
    unittest.main(verbosity=2)
