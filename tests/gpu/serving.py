"""Parts that serve whole models of random weights: Llama-3-8B's shape against its roofline, and the
seed's claim, LLaMA-7B and 13B against transformers' generate on the same GPU."""

import glob
import json
import os
import sys

import kernel_trace
import machine
from server import Server, program
from shapes import largest_static_batch, read_shape, roofline_seconds
from steps import StepFailed, StepSkipped

HERE = os.path.dirname(os.path.abspath(__file__))


def model_folder(name):
    """bench/models/NAME, in the bundle or in the checkout."""
    for root in (os.path.join(machine.bundle(), "models"), os.path.join(machine.ROOT, "bench/models")):
        for folder in sorted(glob.glob(os.path.join(root, "*"))):
            if os.path.basename(folder).lower() == name and os.path.exists(os.path.join(folder, "config.json")):
                return folder
    raise StepSkipped(f"no bench/models/{name}/config.json")


def json_lines(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


class DummyServer:
    """Started when the first step wants it, and kept for the others of the part."""

    def __init__(self, part, model, device="cuda", max_num_seqs=256, max_model_len=4096, budget=8192):
        self.part, self.model, self.device = part, model, device
        self.limits = ["--max-num-seqs", str(max_num_seqs), "--max-model-len", str(max_model_len),
                       "--max-num-batched-tokens", str(budget)]
        self.server = None
        self.env = {}

    def get(self):
        if self.server is None or self.server.coordinator.poll() is not None:
            server = Server(self.part, model_folder(self.model), 1, self.device,
                            options=["--load-format", "dummy", "--skip-tokenizer-init", *self.limits],
                            worker_env=self.env, ready_within=240)
            self.part.keep()
            self.server = server
            self.part.say(f"{self.model}: ready after {server.ready_after:.0f} s")
        return self.server

    def stop(self):
        self.part.end_kept()
        self.server = None

    def bench(self, *options):
        """Rows of bench_serve, without the one of its first request."""
        server = self.get()
        shape = self.shape()
        output = self.part.run([program("bench_serve"), "--url", server.http, "--vocab", str(shape.vocab),
                                "--format", "json", *map(str, options)], env=machine.environment())
        rows = [row for row in json_lines(output) if not row["label"].endswith("(first)")]
        if not rows:
            raise StepFailed(f"bench_serve printed no result:\n{output}")
        return rows

    def shape(self):
        return read_shape(os.path.join(model_folder(self.model), "config.json"))


def median(rows, key):
    values = sorted(row[key] for row in rows)
    return values[len(values) // 2]


def judged(row, value, must, stretch, unit):
    """Adds the goal where there is one for this GPU."""
    if must is None:
        return row
    return dict(row, goal=f">= {must} {unit} (stretch {stretch})", met=value >= must, stretch_met=value >= stretch)


# must, stretch by GPU: decode tok/s of one stream; out tok/s offline by lengths; share of peak in prefill.
GOALS = {
    "H100": {"decode": (167, 178), (128, 128): (14000, 18000), (1000, 1000): (6500, 8000), (2048, 128): (1700, 2100)},
    "H200": {"decode": (223, 255)},
}
PREFILL_GOAL = (0.55, 0.60)


def goals_of(gpu_name):
    return next((goals for key, goals in GOALS.items() if key in gpu_name), {})


def decode_alone(dummy, gpu_name, peaks):
    def work(part):
        rows = dummy.bench("--requests", 1, "--input", 384, "--output", 256, "--repeats", 5, "--label", "1 stream")
        tpot = median(rows, "tpot_p50_ms") / 1e3
        shape = dummy.shape()
        row = {"bench": "decode_alone", "model": dummy.model, "tok_s": 1 / tpot, "tpot_ms": tpot * 1e3,
               "ttft_ms": median(rows, "ttft_p50_ms")}
        if peaks:
            row["roofline_share"] = (shape.weight_bytes + 512 * shape.kv_bytes) / peaks[0] / tpot
        return [judged(row, 1 / tpot, *goals_of(gpu_name).get("decode", (None, None)), "tok/s")]
    return work


def offline(dummy, gpu_name, lengths, requests, repeats):
    def work(part):
        rows = dummy.bench("--requests", requests, "--input", lengths[0], "--output", lengths[1], "--repeats", repeats)
        rate = median(rows, "out_tok_s")
        row = {"bench": "offline", "model": dummy.model, "in/out": f"{lengths[0]}/{lengths[1]}", "requests": requests,
               "out_tok_s": rate, "tpot_p50_ms": median(rows, "tpot_p50_ms"), "ttft_p50_ms": median(rows, "ttft_p50_ms")}
        return [judged(row, rate, *goals_of(gpu_name).get(lengths, (None, None)), "out tok/s")]
    return work


def prefill(dummy, peaks, tokens, requests):
    def work(part):
        rows = dummy.bench("--requests", requests, "--input", tokens, "--output", 1, "--repeats", 3)
        seconds = median(rows, "elapsed_s")
        row = {"bench": "prefill", "model": dummy.model, "prompts": f"{requests} x {tokens}",
               "tok_s": requests * tokens / seconds, "elapsed_ms": seconds * 1e3}
        if peaks is None:
            return [row]
        share = requests * dummy.shape().prefill_flops(tokens) / seconds / peaks[1]
        return [judged(dict(row, mfu=share), share, *PREFILL_GOAL, "of peak")]
    return work


def host_gap(dummy):
    """One stream again, on a server of its own whose kernels are traced (slower: only its gaps count)."""
    def work(part):
        if machine.library("libcupti.so.13") is None:
            raise StepSkipped("no libcupti.so.13 on this machine")
        dummy.stop()
        path = os.path.join(machine.bundle(), "kernel_trace.txt")
        if os.path.exists(path):
            os.unlink(path)
        dummy.env = {"CUDA_INJECTION64_PATH": os.path.join(machine.bundle(), "bin/libquire_kernel_trace.so"),
                     "QUIRE_GPU_TRACE": path}
        try:
            dummy.bench("--requests", 1, "--input", 128, "--output", 128, "--repeats", 1)
        finally:
            dummy.stop()  # the last lines are written when the worker ends
            dummy.env = {}
        row = kernel_trace.summary(path)
        if row is None:
            raise StepFailed("the trace has too few decode steps")
        return [dict(row, model=dummy.model, goal="< 100 us", met=row["gap_p50_us"] < 100)]
    return work


def serve8b(part, gpu_name):
    dummy = DummyServer(part, "llama-3-8b")
    peaks = machine.peaks(gpu_name)
    part.step("one stream", decode_alone(dummy, gpu_name, peaks), needs=60)
    part.step("prefill, one long prompt", prefill(dummy, peaks, 4000, 1), needs=40)
    part.step("prefill, many prompts", prefill(dummy, peaks, 2048, 16), needs=40)
    part.step("offline 128/128", offline(dummy, gpu_name, (128, 128), 1024, 2), needs=60)
    part.step("offline 2048/128", offline(dummy, gpu_name, (2048, 128), 256, 1), needs=60)
    part.step("offline 1000/1000", offline(dummy, gpu_name, (1000, 1000), 256, 1), needs=90)
    part.step("host gap", host_gap(dummy), needs=60)


# The seed's claim. What vLLM published of itself against the two (2023).
HF_PUBLISHED, TGI_PUBLISHED = 24, 3.5


def seed_ours(dummy, load_path, requests, seed):
    def work(part):
        rows = dummy.bench("--requests", requests, "--seed", seed, "--repeats", 3)
        return [{"bench": "seed_ours", "model": dummy.model, "requests": requests, "output": rows[0]["output"],
                 "elapsed_s": median(rows, "elapsed_s"), "out_tok_s": median(rows, "out_tok_s")}]
    return work


def seed_load(part, dummy, requests, seed):
    """The lengths that bench_serve will send, as (input, output), and the file that has them."""
    output = part.run([program("bench_serve"), "--print-load", "yes", "--vocab", "1000", "--requests", str(requests),
                       "--seed", str(seed)], env=machine.environment())
    path = os.path.join(os.path.dirname(part.results.path), f".load-{part.name}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(output)
    return [(row["input"], row["output"]) for row in json_lines(output)], path


def seed_peer(dummy, load_path, batch, seconds, device, dtype="bfloat16", python=sys.executable):
    def work(part):
        dummy.stop()  # the GPU's memory is the peer's now
        output = part.run([python, os.path.join(HERE, "peers/peer_generate.py"), "--config",
                           os.path.join(model_folder(dummy.model), "config.json"), "--load", load_path, "--batch",
                           str(batch), "--seconds", str(seconds), "--device", device, "--dtype", dtype])
        return [dict(row, model=dummy.model) for row in json_lines(output)]
    return work


def seed_ratio(dummy, load, peaks, ours, theirs, must):
    """What the peer would have taken for all requests at its rate, over what we took; and the
    same of two perfect engines (the roofline's ratio), one with static batches, one with paging."""
    def work(part):
        if not ours or not theirs:
            raise StepFailed("one of the two sides was not measured")
        rows = []
        for peer in theirs:
            ratio = ours[0]["out_tok_s"] / peer["out_tok_s"]
            row = {"bench": "seed_ratio", "model": dummy.model, "hf_batch": peer["batch"],
                   "ours_out_tok_s": ours[0]["out_tok_s"], "hf_out_tok_s": peer["out_tok_s"], "ratio": ratio,
                   "hf_requests_measured": peer["requests"]}
            if peer["batch"] == 1:
                row["tgi_ratio_derived"] = ratio * TGI_PUBLISHED / HF_PUBLISHED
            if peaks:
                shape = dummy.shape()
                continuous = roofline_seconds(shape, load, peaks)
                row["roofline_ratio"] = roofline_seconds(shape, load, peaks, peer["batch"]) / continuous
                row["our_share_of_roofline"] = continuous / ours[0]["elapsed_s"]
            if peer["batch"] == 1 and must:
                row.update(goal=f">= {must} x", met=ratio >= must)
            rows.append(row)
        return rows
    return work


def run_seed(part, model, memory_gb, gpu_name, requests=64, seed=1, device="cuda", python=sys.executable,
             dtype="bfloat16", must=24):
    dummy = DummyServer(part, model, device, max_num_seqs=requests, max_model_len=1536)
    load, path = seed_load(part, dummy, requests, seed)
    peaks = machine.peaks(gpu_name)
    ours = part.step("ours", seed_ours(dummy, path, requests, seed), needs=60)
    dummy.stop()
    theirs = []
    try:
        sizes = sorted({1, 8, largest_static_batch(dummy.shape(), load, memory_gb)})
    except StepSkipped:
        sizes = [1, 8]
    for size in sizes:
        theirs += part.step(f"transformers, batch {size}",
                            seed_peer(dummy, path, size, 75 if size == 1 else 60, device, dtype, python), needs=45) or []
    part.step("ratio", seed_ratio(dummy, load, peaks, ours, theirs, must), needs=0)
    os.unlink(path)
