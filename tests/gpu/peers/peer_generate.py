"""The seed's peer: `transformers` generate over static batches, as serving was done before paging. The
same shape with random weights, the same requests (lengths from bench_serve --print-load), in order.
A batch is padded to its longest prompt and runs to its longest answer; only tokens that were asked
for count. Prints a line of JSON for each batch size.

  peer_generate.py --config CONFIG.json --load LENGTHS --batch 1 8 --seconds 90 [--device cuda] [--dtype bfloat16]

Batches beyond --seconds are not begun: then the rate is that of the first requests, and the line
says how many those were."""

import argparse
import json
import sys
import time

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing.name} cannot be imported here")
    sys.exit(77)


def make_model(path, device, dtype):
    with open(path, encoding="utf-8") as file:
        config = transformers.LlamaConfig(**json.load(file))
    torch.manual_seed(1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = transformers.LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = None  # every answer has the length that was asked for
    model.generation_config.pad_token_id = 0
    return model


def generate(model, batch, device):
    """Tokens asked for and seconds of one static batch of (input, output) lengths."""
    longest_in, longest_out = max(i for i, _ in batch), max(o for _, o in batch)
    ids = torch.randint(3, model.config.vocab_size, (len(batch), longest_in), device=device)
    mask = torch.zeros_like(ids)
    for row, (length, _) in enumerate(batch):
        mask[row, longest_in - length:] = 1  # padded on the left
    synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=longest_out,
                             max_new_tokens=longest_out)
    synchronize(device)
    seconds = time.perf_counter() - start
    assert out.shape == (len(batch), longest_in + longest_out), out.shape
    return sum(o for _, o in batch), seconds


def synchronize(device):
    if device != "cpu":
        torch.cuda.synchronize()


def run(model, load, size, seconds, device):
    tokens, elapsed, requests = 0, 0.0, 0
    for first in range(0, len(load), size):
        if elapsed > seconds:
            break
        batch = load[first:first + size]
        more, took = generate(model, batch, device)
        tokens, elapsed, requests = tokens + more, elapsed + took, requests + len(batch)
    return {"bench": "hf_generate", "batch": size, "requests": requests, "of": len(load), "output": tokens,
            "elapsed_s": elapsed, "out_tok_s": tokens / elapsed, "transformers": transformers.__version__,
            "torch": torch.__version__}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--batch", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        sys.exit(77)
    with open(options.load, encoding="utf-8") as file:
        load = [(row["input"], row["output"]) for row in map(json.loads, file)]
    model = make_model(options.config, options.device, getattr(torch, options.dtype))
    generate(model, [(16, 8)], options.device)  # the first calls load kernels
    for size in options.batch:
        print(json.dumps(run(model, load, size, options.seconds, options.device)), flush=True)


if __name__ == "__main__":
    main()
