"""Cables that are cut, mended and slow, between hosts made of network namespaces; messages between
ranks and coordinator that come late."""

import contextlib
import os
import sys
import time

from case import Skipped
from client import wait_tokens
from oracle import mixed
from processes import eventually
from relay import Relay
from start_faults import own_programs

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "e2e"))
from bridge import Unavailable  # pylint: disable=wrong-import-position
from hosts import Hosts  # pylint: disable=wrong-import-position


@contextlib.contextmanager
def two_hosts(case):
    """(network, server) with a rank on each host; this thread talks from the first one."""
    try:
        net = Hosts(case.folder, (1, 1))
    except Unavailable as why:
        raise Skipped(str(why)) from why
    try:
        with net.entered(0):
            server = case.start(*net.serve(), inside=net.inside(0), env=net.mpi())
            yield net, server
            server.settle()
            case.end(server)
        for host in (0, 1):
            if not eventually(lambda: not net.pids(host), 10):
                raise AssertionError(f"left on host {host}: {net.pids(host)}")
    finally:
        net.close()


def short_cut(case):
    """For 1 s: TCP survives it, or the group starts again; the tokens are right either way."""
    bodies = mixed(4, longest=200)
    right = case.right(bodies)
    with two_hosts(case) as (net, server):
        streams = case.streams(server, bodies)
        wait_tokens(streams, 3)
        net.cut()
        time.sleep(1)
        net.mend()
        case.finish(streams, right)
        case.note(f"epoch {server.epoch()}")


def long_cut(case):
    """Until the far rank has left by its lease: it is noticed, and when the cable is mended the
    streams go on."""
    bodies = mixed(4, longest=200)
    right = case.right(bodies)
    with two_hosts(case) as (net, server):
        far = net.workers(1)
        streams = case.streams(server, bodies)
        wait_tokens(streams, 3)
        net.cut()
        cut = time.monotonic()
        if not eventually(lambda: server.find("worker group ended|lost|epoch 1 ended") or not server.ready(), 60):
            raise AssertionError("the cut was not noticed\n" + server.tail())
        case.note(f"noticed after {time.monotonic() - cut:.1f} s")
        if not eventually(lambda: not set(far) & set(net.workers(1)), 60):
            raise AssertionError("the far rank outlived its lease")
        net.mend()
        case.finish(streams, right)


def slow_link(case):
    """8 Mbit/s between the hosts: slower, the same tokens, no new life while steps progress."""
    bodies = mixed(2, longest=60)
    right = case.right(bodies)
    with two_hosts(case) as (net, server):
        streams = case.streams(server, bodies)
        wait_tokens(streams, 3)
        net.slow_down("8mbit")
        case.finish(streams, right)
        assert server.epoch() == 1, f"epoch {server.epoch()}\n{server.tail()}"


def late_messages(case):
    """Plans and results are 20 ms late, then nothing passes for 8 s, longer than the lease, and then
    what was held back arrives at a coordinator that has a new group."""
    bodies = mixed(3, longest=80)
    right = case.right(bodies)
    relay = Relay(delay=0.02)
    script = f'exec $REAL "$@" --coordinator 127.0.0.1:{relay.port}'
    try:
        folder = own_programs(case, script)
        # Ranks dial again until the relay knows where to.
        server = case.start(wait=False, bin=folder)
        listening = eventually(lambda: server.grpc, 30)
        assert listening, server.tail()
        host, port = server.grpc.rsplit(":", 1)
        relay.target = (host, int(port))
        server.wait_ready()
        streams = case.streams(server, bodies)
        wait_tokens(streams, 3)
        assert server.epoch() == 1
        relay.blocked.set()
        time.sleep(8)
        relay.blocked.clear()
        case.finish(streams, right)
        server.wait_epoch(2)
        server.settle()
        case.end(server)
    finally:
        relay.close()
