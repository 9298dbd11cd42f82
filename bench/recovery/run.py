#!/usr/bin/env python3
"""How long open streams pause when a rank is killed, and how fast what it held is computed again.

Starts `quire serve` with two ranks (the demo model), keeps N streams open, kills a rank with SIGKILL, and notes when the
next group is ready and when each stream has its next token. Then as many new prompts of the same lengths are computed at
once: the share is the speed of the recovery to theirs. Needs nothing but Python and a build; prints Markdown.
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE_S = 120


class Server:
    """One `quire serve`; `ready_at` has the time of each group's ready line."""

    def __init__(self, build, model, ranks, options):
        command = [os.path.join(build, "bin", "quire"), "serve", model, "--tensor-parallel-size", str(ranks), "--port", "0",
                   "--grpc-port", "0", "--log-level", "warning", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.http = self.grpc = None
        self.ready_at = []
        self.changed = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        self.wait_ready(1)

    def read(self):
        for line in self.process.stdout:
            now = time.monotonic()
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            with self.changed:
                self.http, self.grpc = words.get("http", self.http), words.get("grpc", self.grpc)
                if line.startswith("quire-coordinator ready "):
                    self.ready_at.append(now)
                self.changed.notify_all()

    def wait_ready(self, count):
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.ready_at) >= count, PATIENCE_S):
                sys.exit("the server did not become ready")
            return self.ready_at[count - 1]

    def ranks(self):
        """Pids of its workers, which name its gRPC address."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                    argv = file.read().split("\0")
            except OSError:
                continue
            if argv[0].endswith("/quire-worker") and f"--coordinator={self.grpc}" in argv:
                found.append(int(pid))
        return found

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Stream(threading.Thread):
    """One completion, read token by token: `ids`, and `times` of the events that brought them."""

    def __init__(self, server, prompt, max_tokens):
        super().__init__(daemon=True)
        self.body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
                     "return_token_ids": True}
        self.url = server.http + "/v1/completions"
        self.prompt, self.ids, self.times, self.failure = prompt, [], [], None
        self.start()

    def run(self):
        request = urllib.request.Request(self.url, json.dumps(self.body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                for line in answer:
                    if line.startswith(b"data: {"):
                        event = json.loads(line[6:])
                        if "error" in event:
                            raise OSError(event["error"]["message"])
                        ids = [i for choice in event["choices"] for i in choice.get("token_ids") or []]
                        self.ids += ids
                        self.times += [time.monotonic()] * len(ids)
        except OSError as why:
            self.failure = str(why)

    def first_after(self, when):
        return next((t for t in self.times if t >= when), None)


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.002)


def prompts_of(lengths, seed):
    draw = random.Random(seed)
    return [[draw.randrange(1000, 40000) for _ in range(length)] for length in lengths]


def one_kill(server, num_streams, prompt_tokens, max_tokens, least, draw):
    """Seconds from the kill to ready and to each stream's next token, and tokens that were computed again, per stream."""
    prompts = prompts_of([prompt_tokens] * num_streams, draw.random())
    lives = len(server.ready_at)
    streams = []
    for prompt in prompts:
        streams.append(Stream(server, prompt, max_tokens))
        time.sleep(0.002)  # so that their order is known
    wait_until(lambda: all(len(s.ids) >= least for s in streams), "tokens before the kill")
    victim = draw.choice(server.ranks())
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    ready = server.wait_ready(lives + 1)
    wait_until(lambda: all(s.failure or s.first_after(ready) for s in streams), "tokens after the kill")
    held = [len(s.prompt) + sum(t < ready for t in s.times) for s in streams]
    nexts = [s.first_after(ready) for s in streams]
    for stream in streams:
        stream.join()
    failures = [s.failure for s in streams if s.failure] + [
        "a stream ended early" for s in streams if len(s.ids) != max_tokens]
    if failures:
        sys.exit(failures[0])
    return {"ready": ready - killed, "next": [t - killed for t in nexts], "held": held,
            "speed": sum(held) / (max(nexts) - ready), "streams": streams}


def fresh_speed(server, lengths, seed):
    """Tokens per second of new prompts, all at once, to the last one's first token."""
    begin = time.monotonic()
    streams = [Stream(server, prompt, 32) for prompt in prompts_of(lengths, seed)]
    for stream in streams:
        stream.join()
    return sum(lengths) / (max(s.times[0] for s in streams) - begin)


def in_order(times):
    """Share of pairs in which the older stream is not behind."""
    pairs = [(a, b) for i, a in enumerate(times) for b in times[i + 1:]]
    return sum(a <= b for a, b in pairs) / len(pairs)


def same_answers(server, kill):
    """Whether disturbed answers are those of an undisturbed run."""
    again = [Stream(server, s.prompt, len(s.ids)) for s in kill["streams"]]
    for stream in again:
        stream.join()
    return all(a.ids == b.ids for a, b in zip(again, kill["streams"]))


def measure(server, name, num_streams, prompt_tokens, max_tokens, least, kills, draw):
    runs = []
    for turn in range(kills):
        run = one_kill(server, num_streams, prompt_tokens, max_tokens, least, draw)
        run["share"] = run["speed"] / fresh_speed(server, run["held"], 1000 + turn)
        runs.append(run)
        print(f"{name}, kill {turn + 1}: ready {run['ready']:.2f} s, last next token {max(run['next']):.2f} s", file=sys.stderr)
    same = same_answers(server, runs[-1])
    median = lambda key: statistics.median(key(run) for run in runs)
    worst = lambda key: max(key(run) for run in runs)
    print(f"| {name} | {kills} | {median(lambda r: r['ready']):.2f} ({worst(lambda r: r['ready']):.2f}) "
          f"| {median(lambda r: min(r['next'])):.2f} | {median(lambda r: max(r['next'])):.2f} ({worst(lambda r: max(r['next'])):.2f}) "
          f"| {median(lambda r: sum(r['held'])):.0f} | {median(lambda r: r['speed']):.0f} | {100 * median(lambda r: r['share']):.0f} % "
          f"| {100 * median(lambda r: in_order(r['next'])):.0f} % | {'yes' if same else 'NO'} |", flush=True)
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="for quire serve")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    server = Server(options.build, options.model, options.ranks, options.options)
    print("| streams | kills | group ready, s (worst) | first next token, s | last next token, s (worst) | tokens again | tokens/s "
          "| of fresh prefill | older first | same answers |\n|---|---|---|---|---|---|---|---|---|---|")
    try:
        good = measure(server, "8, after 60 of 400 tokens", 8, 32, 400, 60, options.kills, draw)
        good &= measure(server, "8, after 360 of 400 tokens", 8, 32, 400, 360, options.kills, draw)
        good &= measure(server, "64", 64, 128, 160, 40, max(1, options.kills // 3), draw)
    finally:
        code = server.stop()
    sys.exit(0 if good and code == 0 else 1)


if __name__ == "__main__":
    main()
