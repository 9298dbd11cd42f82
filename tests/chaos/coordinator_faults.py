"""The coordinator stops, dies, is told to stop, or meets a second one; and what clients do then: go on
with Last-Event-ID, or repeat their request with the same Idempotency-Key."""

import os
import signal
import sqlite3
import subprocess
import time

import client
import processes
from client import Stream, complete, wait_tokens
from oracle import body, compare, long_prompts, mixed
from processes import eventually

RESUME_WITHIN = 60


def stop_the_coordinator_shortly(case):
    """3 s, less than the lease: nothing but a pause."""
    freeze(case, 3, epoch=1)


def stop_the_coordinator_long(case):
    """10 s, more than the lease: the ranks have left, a new life goes on."""
    freeze(case, 10, epoch=None)


def freeze(case, seconds, epoch):
    bodies = mixed(8)
    right = case.right(bodies)
    with case.serve(epoch=epoch) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        pid = server.coordinator()
        processes.send(pid, signal.SIGSTOP)
        time.sleep(seconds)
        processes.send(pid, signal.SIGCONT)
        case.finish(streams, right)


def kill_the_coordinator(server):
    """And waits until the next one listens."""
    old = server.coordinator()
    processes.kill(old)
    back = lambda: server.coordinator() not in (None, old) and server.metric("quire_ready") is not None
    if not eventually(back, RESUME_WITHIN):
        raise AssertionError("no other coordinator came\n" + server.tail())


def all_broken(streams):
    for stream in streams:
        stream.thread.join(30)
        assert not stream.thread.is_alive(), "a stream outlived its coordinator"


def resume_all(streams):
    for stream in streams:
        if stream.broken:
            stream.resume()


def kill_in_streams(case):
    """Every stream is picked up by its Last-Event-ID, and the weights stay where they are."""
    bodies = mixed(16)
    right = case.right(bodies)
    with case.serve() as server:
        ranks = server.all_workers()
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        killed = time.monotonic()
        kill_the_coordinator(server)
        all_broken(streams)
        resume_all(streams)
        case.finish(streams, right)
        assert server.workers() == ranks, "the ranks did not stay"
        again = [s for s in streams if s.stamps and s.stamps[-1] > killed]
        case.note(f"{len(again)} of 16 resumed, first token after "
                  f"{min(min(t for t in s.stamps if t > killed) - killed for s in again):.2f} s")
        # Once more, from the beginning, and one that nobody knows.
        first = streams[0].resume(from_the_beginning=True)
        case.finish([first], right[:1])
        status, _, page = client.get(server.http, "/v1/streams/cmpl-unknown")
        assert (status, client.error_in(page).get("code")) == (404, "stream_not_found"), (status, page)


def kill_in_prefill(case):
    """Nobody has an event yet, so nobody knows an id: the key finds the request again."""
    bodies = long_prompts(4)
    right = case.right(bodies)
    with case.serve("--max-num-batched-tokens", "128") as server:
        streams = case.streams(server, bodies, keys=[f"prefill-{i}" for i in range(len(bodies))], patient=True)
        server.wait_running(1, at_least=True)
        kill_the_coordinator(server)
        all_broken(streams)
        for stream in streams:
            if not stream.done:
                stream.post(stream.last_id)
        case.finish(streams, right)
        assert server.metric("vllm:request_success_total") == len(bodies), "a request ran twice"


def kill_many_times(case):
    """In whatever transaction it is: 12 deaths at different moments, the same answers. Two of three
    lives may be too short for a step; more in a row would be given up, and rightly."""
    bodies = mixed(6, longest=400)
    right = case.right(bodies)
    with case.serve() as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 1)
        for i in range(12):
            before = sum(s.num_tokens() for s in streams)
            if i % 3 == 0 and not all(s.done for s in streams):
                assert eventually(lambda: sum(s.num_tokens() for s in streams) > before
                                  or all(s.done for s in streams), 60), "no progress\n" + server.tail()
            time.sleep(0.05 + 0.13 * i % 0.5)
            kill_the_coordinator(server)
            all_broken(streams)
            resume_all(streams)
        case.finish(streams, right)


def kill_coordinator_while_the_group_restarts(case):
    bodies = mixed(8)
    right = case.right(bodies)
    with case.serve() as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 10)
        processes.kill(server.all_workers()[0])
        kill_the_coordinator(server)
        all_broken(streams)
        resume_all(streams)
        case.finish(streams, right)


def kill_under_our_client(case):
    """`quire generate` goes on by itself, over two deaths."""
    with case.serve() as server:
        program = [os.path.join(case.settings.bin, "quire"), "generate", "--server", server.grpc, "--temperature", "0",
                   "--max-tokens", "800", "Tell me a long story about a dragon."]
        right = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True).stdout
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client_:
            for _ in range(2):
                before = server.metric("vllm:generation_tokens_total") or 0
                eventually(lambda: (server.metric("vllm:generation_tokens_total") or 0) > before + 20, RESUME_WITHIN)
                kill_the_coordinator(server)
            seen, errors = client_.communicate(timeout=120)
        assert client_.returncode == 0, f"it ended with {client_.returncode}: {errors}"
        assert seen == right, f"{seen!r} instead of {right!r}"


def nobody_comes_back(case):
    """A request that nobody resumes goes on for --resume-grace and is then cancelled; one that ends
    before that is kept."""
    with case.serve("--resume-grace", "5") as server:
        streams = case.streams(server, [body("Once upon a time", 1900), body("One, two,", 10)])
        wait_tokens(streams, 5)
        kill_the_coordinator(server)
        all_broken(streams)
        server.settle()


def keys(case):
    """The same key twice at once, after the end, with another body; a client that leaves and returns."""
    wish, other = body("Once upon a time", 200, temperature=0.7, seed=5), body("Another", 10)
    right = case.right([wish])[0]
    with case.serve(epoch=1) as server:
        before = server.metric("vllm:generation_tokens_total")
        first, second = (Stream(server.http, wish, key="twice") for _ in range(2))
        case.finish([first, second], [right, right])
        assert first.id == second.id, "two answers for one key"
        case.finish([Stream(server.http, wish, key="twice")], [right])
        made = server.metric("vllm:generation_tokens_total") - before
        assert made == 200, f"{made} tokens were made instead of 200"
        try:
            complete(server.http, other, {"Idempotency-Key": "twice"})
            raise AssertionError("another body with a used key was accepted")
        except client.Refused as refused:
            assert (refused.status, refused.code) == (409, "idempotency_conflict"), refused
        leaver = Stream(server.http, wish, key="leaver")
        wait_tokens([leaver], 20)
        leaver.leave()
        case.finish([leaver.post(leaver.last_id)], [right])
        twins = {**wish, "n": 2}
        right_twins = complete(server.http, twins)
        leaver = Stream(server.http, twins, key="twins")
        for count in (20, 60, 100, 140):  # an event's id must speak of both choices each time
            wait_tokens([leaver], count)
            leaver.leave()
            leaver.post(leaver.last_id)
        case.finish([leaver], [right_twins])
        before = server.metric("vllm:generation_tokens_total")
        whole = [complete(server.http, wish, {"Idempotency-Key": "whole"}) for _ in range(2)]
        assert whole == [right, right], "a whole answer's replay is another one"
        assert server.metric("vllm:generation_tokens_total") - before == 200, "it was made twice"


def drain(case):
    """SIGTERM: new requests are refused, those that run finish, and it ends with 0."""
    bodies = mixed(20, longest=200)
    right = case.right(bodies)
    server = case.start("--max-num-seqs", "24")
    streams = case.streams(server, bodies)
    wait_tokens(streams, 2)
    server.process.send_signal(signal.SIGTERM)
    if not eventually(lambda: status_of(server) == "draining" or server.ended(), 10):
        raise AssertionError("/ready never said draining")
    try:
        complete(server.http, bodies[0])
        raise AssertionError("a new request was accepted while it drains")
    except client.Refused as refused:
        assert refused.status == 503 and refused.headers["Retry-After"], refused
    case.finish(streams, right)
    code = server.wait_end(60)
    assert code == 0, f"it ended with {code}\n{server.tail()}"
    case.nothing_left(server)


def status_of(server):
    try:
        return client.get_json(server.http, "/ready").get("status")
    except OSError:
        return None


def second_signal(case):
    """Twice SIGTERM: at once; streams end with an error event or resumable, never as if complete."""
    bodies = [body(f"{i}. Once upon a time", 1500) for i in range(8)]
    server = case.start()
    streams = case.streams(server, bodies)
    wait_tokens(streams, 2)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.wait_end(20)
    case.note(f"ended {time.monotonic() - began:.1f} s after the second")
    for stream in streams:
        stream.join(10)
        assert stream.finish == [None] and (stream.error or not stream.done), stream.describe()
    case.nothing_left(server)


def two_on_one_journal(case):
    journal = os.path.join(case.folder, "journal", "requests.db")
    os.makedirs(os.path.dirname(journal))
    with case.serve("--journal", journal):
        second = case.start("--journal", journal, wait=False)
        code = second.wait_end(60)
        assert code != 0, "a second one started on the same journal"
        assert second.find(journal), "it does not name the file:\n" + second.tail()
        case.nothing_left(second)


def journal_of_another_version(case):
    """Never misread: refused by name, and the file is as it was."""
    journal = os.path.join(case.folder, "journal.db")
    with case.serve("--journal", journal) as server:
        complete(server.http, body("Hello", 5), {"Idempotency-Key": "k"})
    database = sqlite3.connect(journal)
    version = database.execute("PRAGMA user_version").fetchone()[0]
    database.execute(f"PRAGMA user_version = {version + 1000}")
    database.close()
    with open(journal, "rb") as file:
        before = file.read()
    later = case.start("--journal", journal, wait=False)
    code = later.wait_end(60)
    assert code != 0 and later.find(journal), f"exit code {code}\n{later.tail()}"
    with open(journal, "rb") as file:
        assert file.read() == before, "the file was changed"
