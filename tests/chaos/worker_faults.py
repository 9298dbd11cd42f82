"""Ranks that die, stop or are told to end, at every moment of a request's life."""

import signal
import subprocess
import time

import processes
from case import Skipped, need_root
from client import wait_tokens
from oracle import long_prompts, mixed
from processes import eventually


def kill_in_prefill(case):
    bodies = long_prompts(4)
    right = case.right(bodies)
    for rank in (0, 1):
        with case.serve("--no-enable-prefix-caching", "--max-num-batched-tokens", "128",
                        epoch=2) as server:
            victims = server.all_workers()
            streams = case.streams(server, bodies)
            server.wait_running(1, at_least=True)
            assert all(s.num_tokens() == 0 for s in streams), "too late: a prompt was computed"
            processes.kill(victims[rank])
            case.finish(streams, right)


def kill_in_decode(case):
    bodies = mixed(16)
    right = case.right(bodies)
    with case.serve(epoch=2) as server:
        victim = server.all_workers()[1]
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        killed = time.monotonic()
        processes.kill(victim)
        case.finish(streams, right)
        case.note(f"longest pause {pause_after(streams, killed):.2f} s of 16 streams")


def pause_after(streams, moment):
    """Until the last of the streams that were open had its next token."""
    return max((min(t for t in s.stamps if t > moment) - moment
                for s in streams if any(t > moment for t in s.stamps)), default=0.0)


def kill_everybody(case):
    """All ranks at once, then mpirun: its ranks must not outlive it."""
    bodies = mixed(8)
    right = case.right(bodies)
    with case.serve(epoch=3) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        for pid in server.all_workers():
            processes.kill(pid)
        server.wait_epoch(2)
        old = server.all_workers()
        wait_tokens(streams, 20)
        for pid in server.named("mpirun"):
            processes.kill(pid)
        if not eventually(lambda: not any(map(processes.alive, old)), 5):
            raise AssertionError("ranks outlived mpirun")
        case.finish(streams, right)


def stop_a_rank(case):
    """SIGSTOP: nobody ends it for us, so somebody must notice."""
    bodies = mixed(8)
    right = case.right(bodies)
    with case.serve(epoch=2) as server:
        victim = server.all_workers()[0]
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        stopped = time.monotonic()
        processes.send(victim, signal.SIGSTOP)
        case.finish(streams, right)
        case.note(f"longest pause {pause_after(streams, stopped):.2f} s")
        processes.send(victim, signal.SIGCONT)  # if anything is left of it, it must not matter
        if not eventually(lambda: not processes.alive(victim), 10):
            raise AssertionError("the rank that was stopped is still there")


def wake_a_rank(case):
    """A rank that sleeps for a moment only costs time: no new life for 1 s of silence."""
    bodies = mixed(4, longest=200)
    right = case.right(bodies)
    with case.serve(epoch=1) as server:
        victim = server.all_workers()[1]
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        processes.send(victim, signal.SIGSTOP)
        time.sleep(1)
        processes.send(victim, signal.SIGCONT)
        case.finish(streams, right)


def kill_during_start(case):
    """Whoever is started dies before it is ready: the budget is spent, and the server ends."""
    server = case.start(wait=False)
    def kill_whoever_is_there():
        for pid in server.workers():
            processes.kill(pid)
        return server.ended()
    if not eventually(kill_whoever_is_there, 120):
        raise AssertionError("it was never given up\n" + server.tail())
    if server.wait_end(1) == 0:
        raise AssertionError("it gave up with exit code 0")
    assert server.find("giving up|budget"), server.tail()
    case.nothing_left(server)


def kill_again_and_again(case):
    """A rank every 3 s: every life makes progress, so nobody gives up."""
    bodies = mixed(8, seed=7, longest=400)
    right = case.right(bodies)
    seconds = 60
    with case.serve() as server:
        end, rounds, kills, streams = time.monotonic() + seconds, 0, 0, []
        while time.monotonic() < end:
            if all(not s.thread.is_alive() for s in streams):
                case.finish(streams, right[:len(streams)])
                streams, rounds = case.streams(server, bodies, patient=True), rounds + 1
            time.sleep(3)
            workers = server.all_workers(seconds=30)
            kills += processes.kill(workers[kills % 2])
        case.finish(streams, right)
        case.note(f"{kills} kills, {rounds} rounds of {len(bodies)} streams")
        server.wait_epoch(2)


def terminate_a_worker(case):
    bodies = mixed(8, longest=200)
    right = case.right(bodies)
    with case.serve() as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 5)
        processes.send(server.all_workers()[1], signal.SIGTERM)
        case.finish(streams, right)
        server.wait_epoch(2)


def kill_in_recovery(case):
    """Two groups in a row die while they compute the prompts again. (A third death without a token between
    would end whoever was in the step each time: F8.)"""
    bodies = mixed(8) + long_prompts(2)
    right = case.right(bodies)
    with case.serve("--max-num-batched-tokens", "128", epoch=3) as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams[:8], 10)
        for life in (1, 2):
            server.wait_epoch(life)
            processes.kill(server.all_workers()[life % 2])
        case.finish(streams, right)


def reuse_a_pid(case):
    """The pid of a dead group is given to a stranger, in a pid namespace of our own: neither the next
    death nor the stop of the server may touch it."""
    need_root()
    bodies = mixed(2, longest=80)
    right = case.right(bodies)
    server = case.start(inside=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                                "sh", "-c", '"$@"; exec sleep 1000', "sh"])
    old = pid_inside(server.named("mpirun")[0])
    for pid in server.all_workers():
        processes.kill(pid)
    server.wait_epoch(2)
    stranger = start_with_pid(server, old)
    case.finish(case.streams(server, bodies), right)
    processes.kill(server.all_workers()[0])
    server.wait_epoch(3)
    assert stranger.poll() is None, "the stranger with the old pid was ended at a restart"
    processes.send(server.supervisor(), signal.SIGTERM)
    if not eventually(lambda: not server.named("quire-supervisor"), 30):
        raise AssertionError("it did not stop\n" + server.tail())
    assert stranger.poll() is None, "the stranger with the old pid was ended at the stop"
    server.kill()
    stranger.wait()
    case.nothing_left(server)


def pid_inside(pid):
    """As the innermost namespace knows it."""
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith("NSpid")).split()[-1])


def start_with_pid(server, pid):
    """A process that waits, with this pid in the server's namespace."""
    script = f"echo {pid - 1} > /proc/sys/kernel/ns_last_pid; sleep 600 & echo $!; wait $!"
    stranger = subprocess.Popen(["nsenter", "-t", str(server.supervisor()), "--pid", "--mount",
                                 "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    got = stranger.stdout.readline().strip()
    if got != str(pid):
        stranger.kill()
        raise Skipped(f"this kernel gave pid {got or '?'} instead of {pid}")
    return stranger
