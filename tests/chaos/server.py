"""A real `quire serve` under test, with its processes, its messages, its metrics, and what it leaves
behind. Every server has a folder for its temporary files, which must be empty at its end."""

import os
import re
import signal
import subprocess
import threading

import client
import processes
from processes import eventually

CACHE = os.environ.get("QUIRE_CACHE") or os.path.expanduser("~/.cache/quire")
MODEL = os.environ.get("QUIRE_DEMO_MODEL") or os.path.join(CACHE, "SmolLM2-135M-Instruct.Q4_1.gguf")
NAME = "chaos"
READY_WITHIN = 90
STOP_WITHIN = 40
SETTLE_WITHIN = 60


class Server:
    """settings: bin (the folder of programs), model, options (of every server), env."""

    def __init__(self, settings, folder, *options, ranks=2, model=None, inside=(), env=None,
                 wait=True, bin=None, ignore_file_size_signal=False):
        self.folder = folder
        for path in (folder, folder + ".cache"):
            os.makedirs(path, exist_ok=True)
        self.shm_before = processes.shm_names()
        self.log, self.http, self.grpc = [], None, None
        argv = [*inside, os.path.join(bin or settings.bin, "quire"), "serve", model or settings.model,
                "--served-model-name", NAME, "--tensor-parallel-size", str(ranks), "--port", "0",
                "--grpc-port", "0", *settings.options, *options]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env={**os.environ, "TMPDIR": folder, "QUIRE_CACHE": folder + ".cache", **settings.env,
                               **(env or {})},  # its journal is not that of another server
            restore_signals=not ignore_file_size_signal)  # Python ignores SIGXFSZ: so will the server
        self.readers = [threading.Thread(target=self.read, args=(stream,), daemon=True)
                        for stream in (self.process.stdout, self.process.stderr)]
        for reader in self.readers:
            reader.start()
        if wait:
            self.wait_ready()

    def read(self, stream):
        for line in stream:
            self.log.append(line.rstrip())
            if found := re.search(r"coordinator (?:listening|ready) http=(\S+) grpc=(\S+)", line):
                self.http, self.grpc = found[1], found[2]
        stream.close()

    def wait_ready(self, seconds=READY_WITHIN):
        ready = eventually(lambda: self.find("coordinator ready ") or self.ended(), seconds)
        if not ready or self.ended():
            self.kill()
            raise AssertionError("the server did not become ready:\n" + self.tail())

    def find(self, pattern, count=1):
        """The count-th match in what it has said, or None."""
        found = [match for line in list(self.log) if (match := re.search(pattern, line))]
        return found[count - 1] if len(found) >= count else None

    def tail(self, lines=25):
        return "\n".join(self.log[-lines:])

    def ended(self):
        return self.process.poll() is not None

    # Its processes. The supervisor is self.process, or below it where a wrapper started it.
    def named(self, name):
        own = processes.stat(self.process.pid)
        first = [self.process.pid] if own and own[0] == name[:15] else []
        return first + processes.named(self.process.pid, name)

    def workers(self):
        return self.named("quire-worker")

    def coordinator(self):
        found = self.named("quire-coordinator")
        return found[0] if found else None

    def supervisor(self):
        return self.named("quire-supervisor")[0]

    def all_workers(self, count=2, seconds=30):
        """The pids of a complete group."""
        found = eventually(lambda: (w := self.workers()) and len(w) == count and w, seconds)
        if not found:
            raise AssertionError(f"no {count} workers: {self.workers()}\n{self.tail()}")
        return found

    def zombies(self):
        below = processes.descendants(self.process.pid)
        return [f"{pid} {name}" for pid, (name, state, _) in below.items() if state == "Z"]

    # What it answers.
    def metric(self, name):
        """Summed over labels; None while it cannot be asked."""
        try:
            status, _, page = client.get(self.http, "/metrics")
        except (OSError, client.http.client.HTTPException):
            return None
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page.decode(), re.M)
        return sum(map(float, found)) if status == 200 and found else None

    def epoch(self):
        return int(self.metric("quire_epoch") or 0)

    def ready(self):
        return self.metric("quire_ready") == 1

    def wait_epoch(self, least, seconds=60):
        if not eventually(lambda: self.ready() and self.epoch() >= least, seconds, 0.02):
            raise AssertionError(f"no epoch {least} in {seconds} s; it is {self.epoch()}\n{self.tail()}")

    def wait_running(self, count, seconds=60, at_least=False):
        def there():
            now = self.metric("vllm:num_requests_running")
            return now is not None and (now >= count if at_least else now == count)
        if not eventually(there, seconds):
            raise AssertionError(f"not {count} running in {seconds} s, but "
                                 f"{self.metric('vllm:num_requests_running')}\n{self.tail()}")

    # Its end.
    def settle(self):
        """Nothing runs, waits or holds a block, and nobody is a zombie."""
        idle = ("vllm:num_requests_running", "vllm:num_requests_waiting", "quire_kv_blocks_used")
        if not eventually(lambda: all(self.metric(name) == 0 for name in idle), SETTLE_WITHIN, 0.05):
            raise AssertionError("not idle: " + str({name: self.metric(name) for name in idle})
                                 + "\n" + self.tail())
        if not eventually(lambda: not self.zombies(), 5):
            raise AssertionError(f"zombies: {self.zombies()}")

    def stop(self, number=signal.SIGTERM, within=STOP_WITHIN):
        """Its exit code."""
        self.process.send_signal(number)
        return self.wait_end(within)

    def wait_end(self, within):
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end in {within} s\n{self.tail()}") from None
        for reader in self.readers:
            reader.join(5)
        return code

    def kill(self):
        """At once, with everything below it: for tests that have failed, and for their ends."""
        for pid in [self.process.pid, *processes.descendants(self.process.pid)]:
            processes.kill(pid)
        self.process.wait()

    def left_behind(self):
        """What is still there although the server has ended: a list of sentences."""
        own = {self.process.pid}
        def living():
            processes.reap_adopted(own)
            return [f"process {pid} {name}" for pid, (name, state, _)
                    in processes.descendants(os.getpid()).items()
                    if name.startswith(("quire", "mpirun", "orted")) and state != "Z"
                    and pid not in own and self.is_ours(pid)]
        def shm():
            new = processes.shm_names() - self.shm_before
            return [f"/dev/shm/{name}" for name in new - processes.mapped_shm()]
        def files():
            found = [os.path.relpath(where, self.folder) for where, _, names in os.walk(self.folder) if names]
            return sorted({"its temporary folder's " + "/".join(place.split("/")[:2]) for place in found})
        def anything():
            return living() + shm() + files()
        eventually(lambda: not anything(), 5, 0.1)
        return anything()

    def is_ours(self, pid):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"TMPDIR={self.folder}".encode() in file.read().split(b"\0")
        except OSError:
            return False
