"""How long the GPU waits for the host between decode steps, from the lines that kernel_trace.cpp wrote.

A step begins with the kernel that looks up embeddings. Its gap is the time from the end of the last
kernel before it to its start (copies of the plan count as waiting: no arithmetic runs). Steps count
where they have as many kernels as most: the decode steps of a single stream."""

import collections
import os

BEGINS = "embed"


def read(path):
    """[(start, end, name)] in order of time."""
    events = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.rstrip("\n").split(" ", 2)
            if len(words) == 3 and words[0].isdigit() and words[1].isdigit():
                events.append((int(words[0]), int(words[1]), words[2]))
    return sorted(events)


def steps(events):
    """For each step after the first: (gap, span, busy, kernels), in nanoseconds."""
    kernels = [event for event in events if not event[2].startswith("copy")]
    begins = [i for i, event in enumerate(kernels) if BEGINS in event[2]]
    found, ended = [], 0
    for n, first in enumerate(begins):
        last = begins[n + 1] if n + 1 < len(begins) else None
        before = max((event[1] for event in kernels[begins[n - 1]:first]), default=0) if n else 0
        ended = max(ended, before)
        if n == 0 or last is None:
            continue
        own = kernels[first:last]
        span = max(event[1] for event in own) - own[0][0]
        found.append((max(0, own[0][0] - ended), span, covered(own), len(own)))
    return found


def covered(events):
    """Time in which at least one of them runs."""
    total, until = 0, 0
    for start, end, _ in events:
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total


def summary(path):
    """A row of results, or None where there are too few decode steps."""
    found = steps(read(path)) if os.path.exists(path) else []
    if not found:
        return None
    usual = collections.Counter(step[3] for step in found).most_common(1)[0][0]
    decode = [step for step in found if step[3] == usual]
    if len(decode) < 20:
        return None

    def at(position, share):
        values = sorted(step[position] for step in decode)
        return values[min(len(values) - 1, int(share * len(values)))] / 1e3

    return {"bench": "host_gap", "decode_steps": len(decode), "kernels_per_step": usual, "gap_p50_us": at(0, 0.5),
            "gap_p99_us": at(0, 0.99), "step_p50_us": at(1, 0.5), "busy_p50_us": at(2, 0.5)}
