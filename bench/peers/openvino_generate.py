"""The peer OpenVINO GenAI: its continuous batching pipeline over the same GGUF, without HTTP. Reads lines of
JSON {"load": FILE, "batch": N} and answers each with one. FILE has a request a line (prompt, output), as
`quire bench serve --print-load` prints them; N requests are given to the pipeline at once.

    python openvino_generate.py MODEL.gguf
"""

import json
import sys
import time

import numpy
import openvino
import openvino_genai


def settings(request):
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = request["output"]
    config.ignore_eos = True
    config.do_sample = False
    return config


def generate(pipeline, batch):
    prompts = [openvino.Tensor(numpy.array([request["prompt"]], dtype=numpy.int64)) for request in batch]
    results = pipeline.generate(prompts, [settings(request) for request in batch])
    made = [len(result.m_generation_ids[0]) for result in results]
    assert made == [request["output"] for request in batch], made
    return sum(made)


def main():
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 2  # GB
    scheduler.max_num_seqs = 64
    pipeline = openvino_genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU")
    generate(pipeline, [{"prompt": [1] * 16, "output": 4}])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        with open(task["load"], encoding="utf-8") as file:
            requests = [json.loads(row) for row in file]
        output, size = 0, task["batch"]
        start = time.perf_counter()
        for first in range(0, len(requests), size):
            output += generate(pipeline, requests[first:first + size])
        seconds = time.perf_counter() - start
        print(json.dumps({"output": output, "seconds": seconds,
                          "input": sum(len(request["prompt"]) for request in requests)}), flush=True)


if __name__ == "__main__":
    main()
