#!/usr/bin/env python3
"""What a model costs on GPUs, by arithmetic: memory, tokens per second, the part that all-reduces take, and
money. A model of step times, no measurement; every constant stands below with where it is from.

    bench/scale/arithmetic.py [--context 1024] [--price H100=2.5 --price A100-80=1.6] [--out FILE]"""

import argparse
import dataclasses
import json
import math
import os
import sys

MODELS = [("LLaMA-7B", "llama-7b"), ("LLaMA-13B", "llama-13b"), ("Llama-3-8B", "llama-3-8b"),
          ("Llama-3-70B", "llama-3-70b")]
TYPE_BYTES = 2  # bf16, weights and KV

# Reached, of what the data sheets promise.
WEIGHTS_SHARE = 0.80    # of memory bandwidth: between gpt-fast's 0.68 (A100) and a megakernel's 0.78, and this
                        # project's goal
KV_SHARE = 0.65         # of memory bandwidth, paged decode attention (ONNX Runtime PR 21414: 0.66)
PRODUCTS_SHARE = 0.60   # of bf16 peak (0.65-0.70 seen in prefill on A100)
STEP_S = 0.3e-3         # between steps, with the next plan in flight (vLLM issue 10634: 0.2-0.3 ms wanted)
MEMORY_SHARE = 0.90     # --gpu-memory-utilization of what weights leave is KV


@dataclasses.dataclass
class Gpu:
    name: str
    memory: float     # bytes
    bandwidth: float  # bytes/s
    flops: float      # bf16, dense
    # An all-reduce of b bytes over n GPUs takes start + 2 (n - 1) / n * b / link. Starts: custom one-shot
    # kernels inside NVLink islands take 4-10 us (sglang PR 2904, H100), PCIe ones 45 us (vllm issue 50576).
    start: float
    link: float       # bytes/s, each way
    price: float      # per hour: an example, replace it by yours (--price)


GPUS = [
    Gpu("A10G", 24e9, 0.60e12, 70e12, 45e-6, 20e9, 1.0),
    Gpu("A100-40", 40e9, 1.555e12, 312e12, 10e-6, 235e9, 1.5),
    Gpu("A100-80", 80e9, 2.039e12, 312e12, 10e-6, 235e9, 2.0),
    Gpu("H100", 80e9, 3.35e12, 989e12, 7e-6, 360e9, 3.0),
    Gpu("H200", 141e9, 4.8e12, 989e12, 7e-6, 360e9, 3.5),
]


@dataclasses.dataclass
class Model:
    name: str
    layers: int
    hidden: int
    products: float   # parameters that a token is multiplied with
    embedding: float  # parameters that are only looked up
    kv_bytes: float   # per token

    @staticmethod
    def read(name, folder):
        with open(os.path.join(os.path.dirname(__file__), "..", "models", folder, "config.json")) as file:
            c = json.load(file)
        hidden, layers, vocab = c["hidden_size"], c["num_hidden_layers"], c["vocab_size"]
        head = c.get("head_dim", hidden // c["num_attention_heads"])
        kv = c.get("num_key_value_heads", c["num_attention_heads"]) * head
        query = c["num_attention_heads"] * head
        layer = hidden * (query + 2 * kv) + query * hidden + 3 * hidden * c["intermediate_size"]
        return Model(name, layers, hidden, layers * layer + vocab * hidden,
                     0 if c["tie_word_embeddings"] else vocab * hidden, 2 * layers * kv * TYPE_BYTES)

    @property
    def weight_bytes(self):
        return (self.products + self.embedding) * TYPE_BYTES


def kv_tokens(model, gpu, ranks):
    free = ranks * gpu.memory - model.weight_bytes
    return int(max(0.0, free * MEMORY_SHARE) / model.kv_bytes)


def reduce_s(model, gpu, ranks, tokens):
    """Two sums a layer."""
    if ranks == 1:
        return 0.0
    message = tokens * model.hidden * TYPE_BYTES
    return 2 * model.layers * (gpu.start + 2 * (ranks - 1) / ranks * message / gpu.link)


def decode_s(model, gpu, ranks, batch, context):
    """(seconds of a step, of these in all-reduces)."""
    weights = model.products * TYPE_BYTES / ranks / (gpu.bandwidth * WEIGHTS_SHARE)
    products = 2 * model.products * batch / ranks / (gpu.flops * PRODUCTS_SHARE)
    kv = batch * context * model.kv_bytes / ranks / (gpu.bandwidth * KV_SHARE)
    reduce = reduce_s(model, gpu, ranks, batch)
    return STEP_S + max(weights, products) + kv + reduce, reduce


def prefill_tokens_s(model, gpu, ranks, chunk=2048):
    products = 2 * model.products * chunk / ranks / (gpu.flops * PRODUCTS_SHARE)
    attention = 2 * model.layers * model.hidden * chunk * chunk / ranks / (gpu.flops * PRODUCTS_SHARE)
    return chunk / (STEP_S + products + attention + reduce_s(model, gpu, ranks, chunk))


def ranks_for(model, gpu):
    """The fewest, a power of two up to 8, that leave room for 16 sequences of 2,048 tokens."""
    return next((n for n in (1, 2, 4, 8) if kv_tokens(model, gpu, n) >= 16 * 2048), None)


def row(model, gpu, context):
    ranks = ranks_for(model, gpu)
    if ranks is None:
        return [model.name, gpu.name, "more than 8"] + ["-"] * 8
    room = kv_tokens(model, gpu, ranks)
    batch = min(256, room // context)
    if batch == 0:
        return [model.name, gpu.name, ranks, f"{model.weight_bytes / ranks / 1e9:.1f}", f"{room:,}"] + ["does not fit"] + ["-"] * 5
    one, _ = decode_s(model, gpu, ranks, 1, context)
    step, reduce = decode_s(model, gpu, ranks, batch, context)
    rate, prefill = batch / step, prefill_tokens_s(model, gpu, ranks)
    # A request of `context` tokens of which half are its prompt: both halves take their time.
    half = context / 2
    mixed = half / (half / rate + half / prefill)
    million = ranks * gpu.price / 3600 / mixed * 1e6
    return [model.name, gpu.name, ranks, f"{model.weight_bytes / ranks / 1e9:.1f}", f"{room:,}", f"{1 / one:,.0f}",
            batch, f"{rate:,.0f}", f"{100 * reduce / step:.0f} %", f"{prefill:,.0f}", f"{million:.2f}"]


def page(context):
    head = ["model", "GPU", "ranks", "weights, GB a rank", "KV room, tokens", "one stream, tok/s", "streams",
            "decode, tok/s", "of it all-reduce", "prefill, tok/s", "a million out, $"]
    rows = [row(Model.read(*names), gpu, context) for names in MODELS for gpu in GPUS]
    table = [head, ["---"] * len(head), *rows]
    lines = ["# Models on GPUs, by arithmetic", "",
             f"`bench/scale/arithmetic.py --context {context}`: bf16 weights and KV, contexts of {context} tokens. Nothing here is",
             "measured; the formulas and the sources of their constants are in the script. `ranks` is the fewest that leave room for 16",
             "sequences of 2,048 tokens; `streams` what then fits, at most 256.", ""]
    lines += ["| " + " | ".join(map(str, cells)) + " |" for cells in table]
    prices = ", ".join(f"{gpu.name} {gpu.price:.2f}" for gpu in GPUS)
    share = f"{100 * WEIGHTS_SHARE:.0f} %, {100 * KV_SHARE:.0f} % and {100 * PRODUCTS_SHARE:.0f} %"
    lines += ["", "- step = 0.3 ms + max(weights / bandwidth, products / peak) + KV / bandwidth + all-reduces; weights, KV and",
              f"  products reach {share} of the data sheet.",
              "- An all-reduce = start + 2 (n - 1) / n x bytes / link, two a layer: 7 us and 360 GB/s (H100, H200), 10 us and 235 GB/s",
              "  (A100), 45 us and 20 GB/s (A10G, PCIe).",
              "- A million output tokens with as many prompt tokens, at full load. Prices per GPU and hour are examples, in $:",
              f"  {prices}; give yours with `--price`."]
    return "\n".join(lines) + "\n"


def set_price(text):
    name, _, price = text.partition("=")
    found = [gpu for gpu in GPUS if gpu.name == name]
    try:
        found[0].price = float(price)
    except (IndexError, ValueError):
        sys.exit(f"--price wants GPU=DOLLARS with one of {', '.join(gpu.name for gpu in GPUS)}, not {text}")
    if not math.isfinite(found[0].price) or found[0].price <= 0:
        sys.exit(f"--price {text}: a price is a positive number")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=1024, help="tokens of each sequence (1024)")
    parser.add_argument("--price", action="append", default=[], metavar="GPU=DOLLARS", help="of one GPU and hour; again for another")
    parser.add_argument("--out", default="-", help="where the page goes (standard output)")
    args = parser.parse_args()
    if args.context < 2:
        parser.error("--context must be at least 2")
    for price in args.price:
        set_price(price)
    text = page(args.context)
    if args.out == "-":
        print(text, end="")
    else:
        try:
            with open(args.out, "w") as file:
                file.write(text)
        except OSError as error:
            sys.exit(f"--out: {error}")


if __name__ == "__main__":
    main()
