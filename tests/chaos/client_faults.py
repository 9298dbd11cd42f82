"""Clients that leave, read slowly, never read, come in thousands, send rubbish or run out of time."""

import concurrent.futures
import json
import os
import resource
import socket
import struct
import threading
import time
import urllib.parse

import client
import processes
from case import Skipped
from client import Stream, complete, wait_tokens
from oracle import FILLER, body, mixed
from processes import eventually


def dial(server, timeout=30):
    return socket.create_connection(address_of(server), timeout)


def address_of(server):
    place = urllib.parse.urlsplit(server.http)
    return place.hostname, place.port


def post_bytes(wish, stream=True):
    payload = json.dumps({**wish, "stream": stream}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(payload)) + payload


def leave_fin(connection):
    connection.close()


def leave_rst(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def leave_half(connection):
    connection.shutdown(socket.SHUT_WR)


def clients_leave(case):
    """By FIN, by RST and by closing one side: in the queue, while the prompt is computed, in the
    middle of an answer. Their blocks are free; who stays gets the right tokens."""
    stays = body("Once upon a time there was", 300)
    right = case.right([stays])
    whole_prompt = body("Chapter 1. " + FILLER * 90, 50)
    for leave in (leave_fin, leave_rst, leave_half):
        with case.serve("--max-num-seqs", "2", "--max-num-batched-tokens", "64", epoch=1) as server:
            stream = Stream(server.http, stays)
            wait_tokens([stream], 1)
            decoding = dial(server)
            decoding.sendall(post_bytes(body("Dear reader,", 1500)))
            assert b"data:" in read_until(decoding, b"data:")
            queued = dial(server)
            queued.sendall(post_bytes(body("In the queue", 1500)))
            assert eventually(lambda: server.metric("vllm:num_requests_waiting") == 1, 10)
            leave(queued)
            assert eventually(lambda: server.metric("vllm:num_requests_waiting") == 0, 10), "queued one stays"
            leave(decoding)
            server.wait_running(1)
            prefill = dial(server)
            prefill.sendall(post_bytes(whole_prompt))
            server.wait_running(2)
            leave(prefill)
            server.wait_running(1)
            case.finish([stream], right)
            for each in (decoding, queued, prefill):
                each.close()


def read_until(connection, what):
    got = b""
    while what not in got:
        more = connection.recv(4096)
        if not more:
            break
        got += more
    return got


def clients_do_not_read(case):
    """Eight that never read and one that reads a byte at a time: the others' answers are right and
    the coordinator's memory does not grow with what is not read."""
    bodies = mixed(6, longest=200)
    right = case.right(bodies)
    with case.serve("--max-num-seqs", "20", epoch=1) as server:
        before = processes.rss_bytes(server.coordinator())
        lazy = []
        for i in range(9):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(address_of(server))
            connection.sendall(post_bytes(body(f"Lazy {i}", 1000, logprobs=20)))
            lazy.append(connection)
        server.wait_running(9)
        dribbler = threading.Thread(target=dribble, args=(lazy[0],), daemon=True)
        dribbler.start()
        case.finish(case.streams(server, bodies), right)
        # A server that waited for its readers would never be idle again.
        eventually(lambda: server.metric("vllm:num_requests_running") == 0, 90, 0.1)
        server.settle()
        grown = processes.rss_bytes(server.coordinator()) - before
        case.note(f"coordinator grew by {grown / (1 << 20):.0f} MB")
        assert grown < 200 << 20, f"{grown} bytes more"
        for connection in lazy:
            connection.close()
        dribbler.join(10)


def dribble(connection):
    try:
        while connection.recv(1):
            time.sleep(0.05)
    except OSError:
        pass


def many_connections(case):
    """10,000 that say nothing, and one that asks; then more than there are descriptors for."""
    want = 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < want + 500:
        raise Skipped(f"a process may have {hard} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wish = body("Once upon a time", 40)
    right = case.right([wish])[0]
    try:
        with case.serve(epoch=1) as server:
            before = processes.rss_bytes(server.coordinator())
            idle = [dial(server) for _ in range(want)]
            assert complete(server.http, wish) == right
            grown = processes.rss_bytes(server.coordinator()) - before
            case.note(f"{grown / want / 1024:.1f} KB each")
            # No descriptor left: accepting pauses, nothing spins or ends, and it goes on afterwards.
            pid = server.coordinator()
            limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (processes.num_fds(pid), limit[1]))
            more = [dial(server) for _ in range(50)]
            busy = cpu_seconds(pid)
            time.sleep(2)
            busy = cpu_seconds(pid) - busy
            assert busy < 1.0, f"{busy:.1f} s of a core in 2 s: it spins"
            for connection in idle + more:
                connection.close()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
            assert eventually(lambda: answers(server, wish) == right, 30, 0.2), "it accepts nobody any more"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(server, wish):
    try:
        return complete(server.http, wish, timeout=5)
    except (OSError, client.http.client.HTTPException, client.Refused):
        return None


def overload(case):
    """Ten times what fits: refused with a Retry-After beyond the queue's bound; whatever is accepted
    is right, and afterwards all is as before."""
    bodies = [body(f"{i}. Once upon a time", 20) for i in range(200)]
    with case.serve("--max-num-seqs", "4", "--max-num-queued-reqs", "16", epoch=1) as server:
        def ask(wish):
            try:
                return complete(server.http, wish)
            except client.Refused as refused:
                assert (refused.status, refused.code) == (503, "queue_full"), refused
                assert int(refused.headers["Retry-After"]) >= 1
                return None
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            got = list(pool.map(ask, bodies))
        accepted = [i for i, answer in enumerate(got) if answer]
        assert 20 <= len(accepted) < len(bodies), f"{len(accepted)} of {len(bodies)} were accepted"
        right = case.right([bodies[i] for i in accepted])
        assert [got[i] for i in accepted] == right, "an accepted request has a wrong answer"
        assert answers(server, bodies[0]) is not None
        case.note(f"{len(accepted)} of {len(bodies)} accepted")


RUBBISH = [
    b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 64,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
BAD_BODIES = [b"[" * 100000, b'{"prompt": NaN}', b'{"prompt": "\xff"}', b'{"prompt": "a", "prompt": "b"}',
              b'{"prompt": "\\ud800"}', b'{"prompt": "a"} x', b"\xef\xbb\xbf{}", b'{"temperature": 1e400}',
              b'{"prompt": "a", "n": 9223372036854775808}', b"null", b""]


def rubbish_under_load(case):
    bodies = mixed(6, longest=300)
    right = case.right(bodies)
    with case.serve(epoch=1) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 1)
        for _ in range(10):
            for bytes_sent in RUBBISH:
                with dial(server) as connection:
                    connection.sendall(bytes_sent)
                    connection.shutdown(socket.SHUT_WR)
                    answer = connection.recv(4096)
                    assert not answer or answer.startswith(b"HTTP/1.1 4") or b" 505 " in answer[:16], answer[:60]
            for payload in BAD_BODIES:
                status, _, page = client.request(server.http, "POST", "/v1/completions", payload)
                assert status == 400, (payload[:40], status, page)
                assert client.error_in(page)["type"] == "invalid_request_error", page
        long = body("a" * 7_000_000, 5)  # tokenized in time, and refused
        try:
            complete(server.http, long)
            raise AssertionError("7 MB of a prompt were accepted")
        except client.Refused as refused:
            assert refused.code == "context_length_exceeded", refused
        case.finish(streams, right)


def deadlines(case):
    """In the queue, while the prompt is computed, in the middle of an answer."""
    answer = body("One, two, three,", 1500)
    with case.serve("--max-num-seqs", "1", "--max-num-batched-tokens", "64", epoch=1) as server:
        long = Stream(server.http, answer)
        wait_tokens([long], 2)
        expect_deadline(server, body("Waits", 5, deadline_ms=500), "queue")
        long.leave()
        server.wait_running(0)
        expect_deadline(server, body("Chapter. " + FILLER * 100, 5, deadline_ms=60), "prefill")
        tokens, finish = complete(server.http, {**answer, "deadline_ms": 1500})
        assert finish == ["deadline"] and 0 < len(tokens[0]) < 1500, (finish, len(tokens[0]))
        right = case.right([{**answer, "max_tokens": len(tokens[0])}])[0]
        assert tokens == right[0], "what it has is not right"


def expect_deadline(server, wish, where):
    try:
        answer = complete(server.http, wish)
        raise AssertionError(f"in the {where}: no deadline, {answer}")
    except client.Refused as refused:
        assert (refused.status, refused.code) == (504, "deadline_exceeded"), f"in the {where}: {refused}"
