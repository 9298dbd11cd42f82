"""Two worker groups of one rank each behind one coordinator: what one loses, the other goes on with."""

import contextlib
import signal
import time

import processes
from client import wait_tokens
from coordinator_faults import kill_the_coordinator, resume_all
from oracle import mixed
from processes import eventually


@contextlib.contextmanager
def two_groups(case):
    with case.serve("--data-parallel-size", "2", ranks=1) as server:
        wait_ready(server, 2)
        yield server


def wait_ready(server, count):
    if not eventually(lambda: server.metric("quire_groups_ready") == count, 60, 0.02):
        raise AssertionError(f"{server.metric('quire_groups_ready')} groups are ready, not {count}\n{server.tail()}")


def longest_gap(streams, since):
    """Between two tokens of one stream, the second of them after that moment."""
    return max((after - before for stream in streams for before, after in zip(stream.stamps, stream.stamps[1:])
                if after > since), default=0.0)


def one_dies(case):
    """Either of them, one after the other: never both."""
    bodies = mixed(8)
    right = case.right(bodies)
    with two_groups(case) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        began = time.monotonic()
        for died in (1, 2):
            wait_tokens(streams, 5 * died)
            oldest = min(server.all_workers())  # the second time the one that took over
            processes.kill(oldest)
            assert eventually(lambda: server.metric("quire_group_losses_total") == died, 30), server.tail()
            wait_ready(server, 2)
        case.finish(streams, right)
        assert server.metric("quire_group_losses_total") == 2
        assert server.metric("quire_requests_recovered_total") >= 2
        case.note(f"longest pause {longest_gap(streams, began):.2f} s of 8 streams")


def one_stops(case):
    """Only its step's deadline tells; until then the other goes on with its own."""
    bodies = mixed(8)
    right = case.right(bodies)
    with two_groups(case) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        processes.send(server.all_workers()[1], signal.SIGSTOP)
        case.finish(streams, right)
        wait_ready(server, 2)
        assert server.metric("quire_group_losses_total") == 1


def both_die(case):
    bodies = mixed(8)
    right = case.right(bodies)
    with two_groups(case) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        for worker in server.all_workers():
            processes.kill(worker)
        case.finish(streams, right)
        wait_ready(server, 2)


def the_coordinator_dies(case):
    """Both groups keep the model and attach to the next one."""
    bodies = mixed(8)
    right = case.right(bodies)
    with two_groups(case) as server:
        workers = server.all_workers()
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        kill_the_coordinator(server)
        for stream in streams:
            stream.thread.join(30)
        resume_all(streams)
        case.finish(streams, right)
        wait_ready(server, 2)
        assert server.workers() == workers, "the weights were loaded again"
