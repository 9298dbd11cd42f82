"""A KV cache that is too small, and one whose bytes are wrong."""

import os
import signal

import client
import processes
from client import complete, wait_tokens
from oracle import FILLER, body, mixed
from processes import eventually

CACHE_BYTES = 48 << 20


def too_small(case):
    """Eight stories in a cache for about two: they give way to each other and all are right; what
    could never fit is refused at once."""
    bodies = [body(f"Story number {i}. " + FILLER * 10, 120, **({"temperature": 0.8, "seed": i} if i % 2 else {}))
              for i in range(8)]
    right = case.right(bodies)
    with case.serve("--kv-cache-memory-bytes", "10M", "--max-num-seqs", "8", epoch=1) as server:
        case.finish(case.streams(server, bodies), right)
        preempted = server.metric("vllm:num_preemptions_total")
        assert preempted > 0, "nobody gave way: the cache is not small enough to show anything"
        case.note(f"{preempted:.0f} preemptions")
        try:
            complete(server.http, body(FILLER * 100, 5))
            raise AssertionError("a prompt larger than the cache was accepted")
        except client.Refused as refused:
            assert refused.status == 400, refused


def corrupt_before_death(case):
    """The ranks are stopped, their whole KV cache is overwritten, they are killed: whatever comes
    afterwards must not have used a block of that life, also what the prefix cache knew."""
    bodies = mixed(4, longest=200) + [body("Again. " + FILLER * 10, 30)]
    right = case.right(bodies)
    with case.serve("--kv-cache-memory-bytes", str(CACHE_BYTES), epoch=2) as server:
        case.finish(case.streams(server, bodies), right)  # now the prefix cache knows them
        streams = case.streams(server, bodies)
        wait_tokens(streams, 3)
        ranks = server.all_workers()
        for pid in ranks:
            processes.send(pid, signal.SIGSTOP)
        eventually(lambda: all(processes.stat(pid)[1] == "T" for pid in ranks), 5)
        spoiled = sum(spoil_large_mappings(pid) for pid in ranks)
        assert spoiled >= len(ranks), "no mapping of a KV cache was found"
        for pid in ranks:
            processes.kill(pid)
        case.finish(streams, right)


def spoil_large_mappings(pid):
    """Overwrites anonymous memory of the cache's size; the number of mappings."""
    spoiled = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            fields = line.split()
            begin, end = (int(x, 16) for x in fields[0].split("-"))
            if "rw" in fields[1] and len(fields) == 5 and end - begin >= CACHE_BYTES // 2:
                memory.seek(begin)
                memory.write(os.urandom(1 << 20) * ((end - begin) >> 20))
                spoiled += 1
    return spoiled
