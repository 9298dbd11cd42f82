"""Requests that take the group down with them, strangers who want to join, numbers that are none, and
clocks that jump."""

import os
import re
import subprocess
import time

import processes
import tiny_model
from case import Skipped
from client import Refused, Stream, complete, wait_tokens
from oracle import FILLER, body, mixed
from processes import eventually

REFUSED = 76  # worker/session/exit_code.h


def poison(case):
    """Whenever the poison's prompt is being computed, a rank dies: beside the others once they have
    gone on, and as soon as it runs alone. It never gets a token; it is quarantined, the others are
    right."""
    bodies = mixed(4, longest=300)
    right = case.right(bodies)
    deadly = body("Poison. " + FILLER * 100, 5)
    with case.serve("--max-num-batched-tokens", "16", "--max-num-seqs", "8") as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        victim = Stream(server.http, deadly)
        server.wait_running(len(bodies) + 1, at_least=True)
        deaths = 0
        while victim.thread.is_alive() and deaths < 12:
            life, had = server.epoch(), [s.num_tokens() for s in streams]

            def time_to_die():
                others = all(s.num_tokens() > n or not s.thread.is_alive() for s, n in zip(streams, had))
                alone = deaths >= 2 and server.metric("vllm:num_requests_running") == 1
                return others or alone or not victim.thread.is_alive()

            eventually(time_to_die, 20)
            if victim.thread.is_alive():
                deaths += processes.kill(server.all_workers()[deaths % 2])
            eventually(lambda: server.ready() and server.epoch() > life or not victim.thread.is_alive(), 60)
        victim.join(60)
        assert victim.error and victim.error.code == "request_quarantined", f"{deaths} deaths: {victim.describe()}"
        assert victim.num_tokens() == 0, "it had tokens"
        case.finish(streams, right)
        case.note(f"{deaths} deaths")
        assert server.metric("quire_requests_quarantined_total") == 1


def strangers(case):
    """A rank of a group of another size, and ranks of a group that nobody asked for: refused, or kept
    waiting; the epoch goes on. (Messages of a past epoch: tests/coordinator/fleet.)"""
    bodies = mixed(4, longest=300)
    right = case.right(bodies)
    with case.serve(epoch=1) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 1)
        worker = server.all_workers()[0]
        start = lambda world, rank: subprocess.Popen(
            [*arguments_of(worker), "--instance-id", "stranger", "--world-size", world, "--rank", rank],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment_of(worker))
        other_size = start("3", "0")
        try:
            said = other_size.communicate(timeout=60)[1]
        finally:
            other_size.kill()
        assert other_size.returncode == REFUSED, f"{other_size.returncode}: {said[-500:]}"
        assert "3 ranks" in said, said[-500:]
        standby = [start("2", "0"), start("2", "1")]
        case.finish(streams, right)
        for each in standby:
            each.kill()
            each.communicate()


def environment_of(pid):
    """Without what MPI gave it."""
    with open(f"/proc/{pid}/environ") as file:
        pairs = [line.split("=", 1) for line in file.read().split("\0") if "=" in line]
    return {k: v for k, v in pairs if not re.match("OMPI_|PMIX_|ORTE_|OPAL_", k)}


def arguments_of(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().rstrip("\0").split("\0")


def clock_jumps(case):
    """The wall clock goes an hour forward, and then two back: nothing expires, nobody is missed."""
    library = os.path.join(case.settings.bin, "..", "tests", "libquire_clock_jump.so")
    if not os.path.exists(library):
        raise Skipped("libquire_clock_jump.so is not built")
    bodies = mixed(6, longest=300)
    right = case.right(bodies)
    offset = os.path.join(case.folder, "offset")
    for jump in (3600, -3600):
        with open(offset, "w") as file:
            file.write("0")
        with case.serve(epoch=1, env={"LD_PRELOAD": os.path.abspath(library), "QUIRE_CLOCK_OFFSET": offset}) as server:
            timed = Stream(server.http, {**bodies[0], "deadline_ms": 600000})
            streams = case.streams(server, bodies)
            wait_tokens(streams + [timed], 5)
            with open(offset, "w") as file:
                file.write(str(jump))
            began = time.monotonic()
            case.finish(streams + [timed], right + [right[0]])
            case.note(f"{time.monotonic() - began:.0f} s after {jump} s")


def no_numbers(case):
    """A model whose embedding of one token is NaN: the request that has it ends with an error of its
    own, its neighbours in the batch are right."""
    folder = os.path.join(case.folder, "nan")
    tiny_model.write(folder)
    settings = ("--skip-tokenizer-init",)
    # None of these may pick that token itself.
    bodies = [body([5 + i, 6, 7], 200, temperature=0.8, seed=i, logit_bias={str(tiny_model.NAN_TOKEN): -100})
              for i in range(4)]
    with case.serve(*settings, model=folder, epoch=1) as calm:
        right = [complete(calm.http, wish) for wish in bodies]
    with case.serve(*settings, model=folder, epoch=1) as server:
        streams = case.streams(server, bodies)
        for at in range(3):
            prompt = [5, 6, 7]
            prompt[at] = tiny_model.NAN_TOKEN
            try:
                answer = complete(server.http, body(prompt, 20))
                raise AssertionError(f"NaN gave an answer: {answer}")
            except Refused as refused:
                assert (refused.status, refused.code) == (500, "numerical_error"), refused
        case.finish(streams, right)
        case.finish(case.streams(server, bodies), right)  # also in blocks that held NaN before
