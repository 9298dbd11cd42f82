"""PyTorch's own attention and products at the shapes that bench_cuda_attention and bench_cuda_linear
measure, in the same run: SDPA (its flash backend on bf16) over contiguous K and V, which is easier
work than paged, and F.linear. Prints lines of JSON. --tiny: small shapes, to try it on a CPU."""

import argparse
import json
import sys
import time

try:
    import torch
    from torch.nn import functional
except ImportError as missing:
    print(f"skipped: {missing.name} cannot be imported here")
    sys.exit(77)


def measure(work, copies, device):
    """Median microseconds of a call; on a GPU of calls on a captured graph."""
    for i in range(3):
        work(i % copies)
    if device == "cpu":
        start = time.perf_counter()
        work(0)
        return (time.perf_counter() - start) * 1e6
    calls = max(copies, 10)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            work(i % copies)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    samples = []
    for _ in range(8):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e3 / calls)
    return sorted(samples[1:])[len(samples) // 2]


def random(device, *shape):
    return torch.rand(shape, device=device, dtype=torch.bfloat16) * 2 - 1


def copies_of(tensor, device):
    l2 = 50 << 20 if device == "cuda" else 1
    return min(64, 3 * l2 // (tensor.numel() * 2) + 1)


def decode(device, batch, context, heads, kv_heads, dim):
    q = random(device, batch, heads, 1, dim)
    kv = [random(device, 2, batch, kv_heads, context, dim)]
    while len(kv) < copies_of(kv[0], device):
        kv.append(kv[0].clone())
    us = measure(lambda i: functional.scaled_dot_product_attention(q, kv[i][0], kv[i][1], enable_gqa=True), len(kv),
                 device)
    report("torch_attention_decode", batch=batch, context=context, us=us, gb_s=kv[0].numel() * 2 / us / 1e3)


def prefill(device, rows, tokens, heads, kv_heads, dim):
    q = random(device, rows, heads, tokens, dim)
    k, v = random(device, rows, kv_heads, tokens, dim), random(device, rows, kv_heads, tokens, dim)
    us = measure(lambda i: functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), 1,
                 device)
    flops = 4.0 * rows * heads * dim * tokens * (tokens + 1) / 2
    report("torch_attention_prefill", rows=rows, tokens=tokens, us=us, tflop_s=flops / us / 1e6)


def linear(device, name, tokens, rows, columns):
    x, weights = random(device, tokens, columns), [random(device, rows, columns)]
    while len(weights) < copies_of(weights[0], device):
        weights.append(weights[0].clone())
    us = measure(lambda i: functional.linear(x, weights[i]), len(weights), device)
    report("torch_linear", matrix=name, tokens=tokens, us=us, gb_s=2.0 * rows * columns / us / 1e3,
           tflop_s=2.0 * tokens * rows * columns / us / 1e6)


def report(bench, **row):
    print(json.dumps({"bench": bench, **row, "torch": torch.__version__}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        sys.exit(77)
    torch.manual_seed(1)
    with torch.inference_mode():
        if options.tiny:
            decode(device, 2, 32, 4, 2, 64)
            prefill(device, 1, 32, 4, 2, 64)
            linear(device, "tiny", 2, 48, 64)
            return
        for batch, context in ((1, 1024), (1, 32768), (16, 4096), (64, 512), (64, 4096), (256, 4096)):
            decode(device, batch, context, 32, 8, 128)
        for rows, tokens in ((1, 2048), (1, 8192), (1, 16384), (16, 512)):
            prefill(device, rows, tokens, 32, 8, 128)
        for name, rows, columns in (("qkv", 6144, 4096), ("o", 4096, 4096), ("gate_up", 28672, 4096),
                                    ("down", 4096, 14336)):
            for tokens in (1, 16, 512, 2048, 8192):
                linear(device, name, tokens, rows, columns)


if __name__ == "__main__":
    main()
