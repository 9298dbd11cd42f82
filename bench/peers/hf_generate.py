"""The peer "transformers generate": serving as it was before continuous batching. Reads lines of JSON
{"load": FILE, "batch": N, "dtype": NAME} and answers each with one. FILE has a request a line (prompt,
output), as `quire bench serve --print-load` prints them. A batch is padded to its longest prompt and runs
to its longest answer; only tokens that were asked for count.

    python hf_generate.py MODEL_FOLDER THREADS
"""

import json
import sys
import time

import torch
import transformers


def generate(model, batch):
    longest_in = max(len(request["prompt"]) for request in batch)
    longest_out = max(request["output"] for request in batch)
    ids = torch.zeros((len(batch), longest_in), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(batch):
        length = len(request["prompt"])
        ids[row, longest_in - length:] = torch.tensor(request["prompt"])
        mask[row, longest_in - length:] = 1  # padded on the left
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=longest_out,
                             max_new_tokens=longest_out)
    assert out.shape == (len(batch), longest_in + longest_out), out.shape
    return sum(request["output"] for request in batch)


def load_model(folder, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None  # every answer has the length that was asked for
    model.generation_config.pad_token_id = 0
    return model


def main():
    folder, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    models = {"bfloat16": load_model(folder, "bfloat16")}
    generate(models["bfloat16"], [{"prompt": [1] * 16, "output": 4}])  # the first call loads kernels
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        with open(task["load"], encoding="utf-8") as file:
            requests = [json.loads(row) for row in file]
        if task["dtype"] not in models:
            models[task["dtype"]] = load_model(folder, task["dtype"])
            generate(models[task["dtype"]], [{"prompt": [1] * 16, "output": 4}])
        output, size = 0, task["batch"]
        start = time.perf_counter()
        for first in range(0, len(requests), size):
            output += generate(models[task["dtype"]], requests[first:first + size])
        seconds = time.perf_counter() - start
        print(json.dumps({"output": output, "seconds": seconds,
                          "input": sum(len(request["prompt"]) for request in requests)}), flush=True)


if __name__ == "__main__":
    main()
