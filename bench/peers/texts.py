"""The reference texts (reference/smollm2) as peers score them, and the file that bench_accuracy --peer reads."""

import json
import os


def read(data, windows):
    """([(prompt ids, output ids)], [ids of a window])"""
    folder = os.path.join(data, "reference/smollm2")
    with open(os.path.join(folder, "golden.dev.json"), encoding="utf-8") as file:
        goldens = [(item["prompt_ids"], item["output_ids"]) for item in json.load(file)["items"]]
    with open(os.path.join(folder, "ppl.json"), encoding="utf-8") as file:
        return goldens, [window["ids"] for window in json.load(file)["windows"]][:windows]


def write(path, name, golden, argmax, nll):
    """golden: the logprob of each golden token; argmax: whether none is likelier; nll: the mean of each window."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"name": name, "golden": golden, "argmax": [int(best) for best in argmax], "nll": nll}, file)
