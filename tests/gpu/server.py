"""A coordinator and its ranks as separate processes, without mpirun (the lent machine has none), and
a client that needs the standard library only. Ports are taken on loopback, port 0."""

import http.client
import json
import os
import queue
import threading
import time
import uuid

import machine
from steps import StepFailed


class Server:
    """`part` starts the processes and ends what is left of them with the step."""

    def __init__(self, part, model, ranks=1, device="cuda", options=(), worker_options=(), worker_env=None,
                 ready_within=120):
        self.part, self.model, self.ranks, self.device = part, model, ranks, device
        self.options, self.worker_options = list(options), list(worker_options)
        self.worker_env = worker_env or {}
        self.version = machine.nccl_version() if device == "cuda" else None
        self.lines = queue.Queue()
        self.log = []
        self.workers = []
        self.coordinator = part.start(
            [program("quire-coordinator"), model, "--port", "0", "--grpc-port", "0",
             "--tensor-parallel-size", str(ranks), *self.options],
            env=machine.environment(), stdout=-1, stderr=-2, text=True, errors="replace")
        threading.Thread(target=self._read, args=(self.coordinator, self.lines), daemon=True).start()
        self.grpc = self._fields("quire-coordinator listening ", 60)["grpc"]
        self.start_group()
        started = time.monotonic()
        self.http = self._fields("quire-coordinator ready ", ready_within)["http"].split("//")[-1]
        self.ready_after = time.monotonic() - started

    def _read(self, process, lines):
        for line in process.stdout:
            self.log.append(line.rstrip())
            if lines is not None:
                lines.put(line)

    def _fields(self, start, seconds):
        deadline = time.monotonic() + min(seconds, max(1, self.part.left()))
        while time.monotonic() < deadline:
            try:
                line = self.lines.get(timeout=0.2)
            except queue.Empty:
                dead = [w.args[0] for w in [self.coordinator, *self.workers] if w.poll() not in (None, 0)]
                if dead:
                    self.fail(f"{dead[0]} ended")
                continue
            if line.startswith(start):
                return dict(word.split("=", 1) for word in line.split() if "=" in word)
        self.fail(f"no line '{start}...' in {seconds:.0f} s")

    def fail(self, why):
        time.sleep(0.5)  # for the last words of who ended
        raise StepFailed(f"the server: {why}\n" + "\n".join(self.log[-40:]))

    def start_group(self):
        """A new life of all ranks."""
        name = uuid.uuid4().hex[:16]
        self.workers = []
        for rank in range(self.ranks):
            env = machine.environment(**(machine.rank_environment(rank, self.version) if self.ranks > 1 else {}))
            env.update(self.worker_env)
            worker = self.part.start(
                [program("quire-worker"), self.model, "--device", self.device, "--coordinator", self.grpc,
                 "--rank", str(rank), "--world-size", str(self.ranks), "--instance-id", name,
                 *self.options_of_worker()],
                env=env, stdout=-1, stderr=-2, text=True, errors="replace")
            threading.Thread(target=self._read, args=(worker, None), daemon=True).start()
            self.workers.append(worker)

    def options_of_worker(self):
        shared = []
        for i, option in enumerate(self.options):  # what both programs must agree on
            if option in ("--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--block-size", "--load-format"):
                shared += [option, self.options[i + 1]]
        return shared + self.worker_options

    def group_ended(self, seconds):
        """Waits until every rank of this life is gone."""
        deadline = time.monotonic() + seconds
        for worker in self.workers:
            worker.wait(timeout=max(0.1, deadline - time.monotonic()))

    def stop(self):
        self.coordinator.terminate()
        self.coordinator.wait(timeout=30)
        self.group_ended(30)

    # The client.

    def request(self, method, path, body=None, timeout=120):
        connection = http.client.HTTPConnection(self.http, timeout=timeout)
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def model_name(self):
        connection, reply = self.request("GET", "/v1/models")
        name = json.load(reply)["data"][0]["id"]
        connection.close()
        return name

    def complete(self, **body):
        """A completion, whole."""
        body.setdefault("model", self.model_name())
        connection, reply = self.request("POST", "/v1/completions", body)
        answer = json.load(reply)
        connection.close()
        if reply.status != 200:
            raise StepFailed(f"HTTP {reply.status}: {answer}")
        return answer

    def stream(self, **body):
        """The events of a streamed completion."""
        body.setdefault("model", self.model_name())
        connection, reply = self.request("POST", "/v1/completions", dict(body, stream=True))
        if reply.status != 200:
            raise StepFailed(f"HTTP {reply.status}: {reply.read()!r}")
        for line in reply:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield json.loads(line[6:])
        connection.close()

    def metrics(self):
        connection, reply = self.request("GET", "/metrics")
        text = reply.read().decode()
        connection.close()
        return text


def program(name):
    return os.path.join(machine.bundle(), "bin", name)
