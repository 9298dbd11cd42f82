"""Several ranks on one GPU, as processes: goldens, and a rank that is killed in the middle of a step.
Times on a shared GPU say that it works, and nothing of a machine with a GPU for each rank."""

import signal
import threading
import time

import goldens
import machine
from server import Server, program
from serving import json_lines
from steps import StepFailed, StepSkipped


def golden_step(name, ranks, device="cuda", dtype="float32", tolerance=2e-3, close=goldens.CLOSE,
                options=()):
    def work(part):
        server = Server(part, goldens.folder(name), ranks, device, options=["--max-model-len", "512"],
                        worker_options=["--dtype", dtype, "--kv-cache-memory-bytes", "64M", *options])
        row = goldens.check_model(server, name, tolerance, close)
        server.stop()
        return [dict(row, dtype=dtype)]
    return work


class Streams:
    """Some greedy streams at once; their texts, and how far they have come."""

    def __init__(self, server, count, tokens):
        self.server, self.tokens = server, tokens
        self.texts = [""] * count
        self.finished = [None] * count
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, i):
        try:
            for event in self.server.stream(prompt=[1, 403 + i, 407], max_tokens=self.tokens, temperature=0,
                                            ignore_eos=True):
                for choice in event.get("choices", []):
                    self.texts[i] += choice["text"]
                    self.finished[i] = choice.get("finish_reason") or self.finished[i]
        except Exception as error:  # told by the one who joins
            self.finished[i] = repr(error)

    def join(self, seconds):
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.1, deadline - time.monotonic()))

    def wait_until_under_way(self, seconds):
        deadline = time.monotonic() + seconds
        while not all(self.texts):
            if time.monotonic() > deadline or all(self.finished):
                raise StepFailed(f"the streams did not begin: {self.finished}")
            time.sleep(0.001)


def kill_step(ranks, device="cuda", options=()):
    """Kills one rank while all streams are under way; the other ranks must end by themselves, a new
    group take over, and every stream give what it gives undisturbed."""
    def work(part):
        server = Server(part, goldens.folder("stories260K"), ranks, device, options=["--max-model-len", "512"],
                        worker_options=["--dtype", "float32", "--kv-cache-memory-bytes", "64M", *options])
        undisturbed = Streams(server, 4, 400)
        undisturbed.join(120)
        rows = []
        for victim in range(ranks):
            streams = Streams(server, 4, 400)
            streams.wait_until_under_way(60)
            if all(streams.finished):
                raise StepFailed("the streams ended before a rank was killed")
            server.workers[victim].send_signal(signal.SIGKILL)
            killed = time.monotonic()
            server.group_ended(90)
            ended = time.monotonic()
            cut = sum(finished is None for finished in streams.finished)
            server.start_group()
            streams.join(120)
            if streams.finished != ["length"] * 4 or streams.texts != undisturbed.texts:
                raise StepFailed(f"rank {victim} killed: {streams.finished}, texts equal: "
                                 f"{[a == b for a, b in zip(streams.texts, undisturbed.texts)]}")
            if cut == 0:
                raise StepFailed(f"rank {victim}: no stream was under way when it was killed; nothing was shown")
            rows.append({"bench": "kill_a_rank", "ranks": ranks, "victim": victim, "streams_cut": cut,
                         "peers_ended_s": ended - killed, "streams_done_s": time.monotonic() - killed})
        server.stop()
        return rows
    return work


def meet_step(ranks):
    def work(part):
        version = machine.nccl_version()
        if version is None:
            raise StepSkipped("no NCCL on this machine")
        env = machine.rank_environment(0, version)
        own_hosts = "yes" if env.pop("NCCL_HOSTID", None) else "no"
        output = part.run([program("bench_cuda_meet"), "--ranks", str(ranks), "--own-hosts", own_hosts], 120,
                          machine.environment(**env))
        rows = json_lines(output)
        if not rows:
            raise StepFailed("bench_cuda_meet printed no result")
        return [dict(row, nccl=".".join(map(str, version))) for row in rows]
    return work


def run(part, gpu):
    for count in (2, 3):
        for model in goldens.MODELS:
            part.step(f"goldens, {model} on {count} ranks", golden_step(model, count))
    part.step("kill a rank of 2", kill_step(2))
    part.step("kill a rank of 3", kill_step(3))
    for count in (2, 3):
        part.step(f"meetings of {count} ranks", meet_step(count))
