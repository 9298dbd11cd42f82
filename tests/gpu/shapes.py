"""What a model's shape costs in bytes and operations, and the least time that a GPU's memory and
arithmetic allow for a set of requests (rooflines, as in data sheets: nothing reaches them)."""

import json
from dataclasses import dataclass

BYTES = 2  # bf16


@dataclass
class Shape:
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def parameters(self):
        """In matrix products: all but the input embedding."""
        attention = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim + self.hidden * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.ffn) + self.hidden * self.vocab

    @property
    def weight_bytes(self):
        return self.parameters * BYTES

    @property
    def kv_bytes(self):
        """Of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES

    def prefill_flops(self, tokens):
        # The vocabulary product is needed for the last token only.
        body = self.parameters - self.hidden * self.vocab
        return 2.0 * body * tokens + 2.0 * self.layers * self.heads * self.head_dim * tokens * tokens


def read_shape(path):
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    heads = config["num_attention_heads"]
    return Shape(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"], heads,
                 config.get("num_key_value_heads", heads), config["vocab_size"])


def step_seconds(shape, contexts, peaks):
    """One decode step of rows with these contexts."""
    bandwidth, flops = peaks
    read = (shape.weight_bytes + sum(contexts) * shape.kv_bytes) / bandwidth
    return max(read, 2.0 * shape.parameters * len(contexts) / flops)


def roofline_seconds(shape, load, peaks, batch=None):
    """All requests (input, output) at once, each leaving when it is done; or in static batches of
    `batch`, each padded to its longest prompt and lasting to its longest answer."""
    if batch is None:
        total = sum(shape.prefill_flops(i) for i, _ in load) / peaks[1]
        for step in range(1, max(o for _, o in load)):
            total += step_seconds(shape, [i + step for i, o in load if o > step], peaks)
        return total
    total = 0.0
    for first in range(0, len(load), batch):
        rows = load[first:first + batch]
        longest_in = max(i for i, _ in rows)
        total += len(rows) * shape.prefill_flops(longest_in) / peaks[1]
        for step in range(1, max(o for _, o in rows)):
            total += step_seconds(shape, [longest_in + step] * len(rows), peaks)
    return total


def largest_static_batch(shape, load, memory_gb):
    """How many rows of the longest request fit beside the weights, with a GB for all else."""
    longest = max(i for i, _ in load) + max(o for _, o in load)
    embedding = shape.vocab * shape.hidden * BYTES
    room = memory_gb * 1e9 - shape.weight_bytes - embedding - 1e9
    return max(1, min(len(load), int(room // (longest * shape.kv_bytes))))
