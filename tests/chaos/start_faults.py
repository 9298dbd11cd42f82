"""Bad starts: ranks that cannot load, files that are not what they say, shared memory that is not
there, addresses that are taken. Every one ends soon, with a reason and a code, and leaves nothing."""

import os
import shutil
import socket
import stat

import processes
from case import need_root
from client import Stream, complete, wait_tokens
from oracle import body, mixed
from processes import eventually
from server import Server

END_WITHIN = 90
ANY_FAILURE = range(1, 256)


def expect_end(case, server, codes, *texts, within=END_WITHIN):
    code = server.wait_end(within)
    assert code in codes, f"it ended with {code} instead of one of {codes}\n{server.tail()}"
    for text in texts:
        assert server.find(text), f"it does not say {text!r}\n{server.tail()}"
    case.nothing_left(server)


def own_programs(case, worker_script):
    """A folder of programs in which quire-worker is a shell script; $REAL is the real one."""
    folder = os.path.join(case.folder, "bin")
    os.makedirs(folder)
    for name in os.listdir(case.settings.bin):
        path = os.path.join(case.settings.bin, name)
        if name == "quire-worker" or not stat.S_ISREG(os.stat(path).st_mode):
            continue
        # Copies: a program looks for its neighbours where its own file is.
        shutil.copy2(path, folder) if name.startswith("quire") else os.symlink(path, os.path.join(folder, name))
    worker = os.path.join(folder, "quire-worker")
    with open(worker, "w") as file:
        file.write(f"#!/bin/sh\nREAL={case.settings.bin}/quire-worker\nRANK=$OMPI_COMM_WORLD_RANK\n{worker_script}\n")
    os.chmod(worker, 0o755)
    return folder


def rank_one(case, script):
    """Programs in which rank 1 does this instead of loading; the other one waits for it."""
    return own_programs(case, f'if [ $RANK = 1 ]; then {script}; fi\nexec $REAL "$@"')


def a_rank_fails_to_load(case):
    """Rank 1 exits with 65, dies by SIGSEGV, or runs out of memory."""
    for script, codes, text in (
            ("exit 65", (65,), "model's files"),
            ("kill -SEGV $$", ANY_FAILURE, "giving up|budget"),
            ("ulimit -v 300000; exec $REAL \"$@\"", ANY_FAILURE, "memory|giving up|budget")):
        folder = rank_one(case, script)
        expect_end(case, case.start(wait=False, bin=folder), codes, text)
        shutil.rmtree(folder)


def a_rank_leaves_silently(case):
    """Rank 1 exits with 0 before it has said anything, which mpirun finds all right. Every life takes
    until the others' deadline for the meeting."""
    folder = rank_one(case, "exit 0")
    expect_end(case, case.start(wait=False, bin=folder), ANY_FAILURE, "not every rank has come", within=300)


def damaged(case, name, edit):
    path = os.path.join(case.folder, name)
    shutil.copyfile(case.settings.model, path)
    edit(path)
    return path


def files_are_wrong(case):
    size = os.path.getsize(case.settings.model)

    def write(at, data):
        def edit(path):
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(data)
        return edit
    for name, edit in (("cut.gguf", lambda path: os.truncate(path, size // 2)),
                       ("header.gguf", write(8, b"\xff" * 7 + b"\x7f")),
                       ("magic.gguf", write(0, b"JUNK"))):
        path = damaged(case, name, edit)
        expect_end(case, case.start(model=path, wait=False), (65,), name)
        os.unlink(path)


def ranks_see_different_files(case):
    """Rank 1 is given another model than rank 0: it may not join."""
    other = damaged(case, "other.gguf", lambda path: os.truncate(path, os.path.getsize(path) // 2))
    folder = own_programs(case, f'''
if [ $RANK = 1 ]; then
  shift_model() {{ for a in "$@"; do case $a in *.gguf) echo {other};; *) echo "$a";; esac; done; }}
  IFS="
"
  exec $REAL $(shift_model "$@")
fi
exec $REAL "$@"''')
    server = case.start(wait=False, bin=folder)
    expect_end(case, server, ANY_FAILURE, "other.gguf")


def file_replaced_while_running(case):
    """By another file under the same name. What runs goes on; a new life finds another model and is
    not allowed to answer with it."""
    path = damaged(case, "model.gguf", lambda path: None)
    bodies = mixed(2, longest=100)
    right = case.right(bodies)
    server = case.start(model=path)
    case.finish(case.streams(server, bodies), right)
    with open(path + ".new", "wb") as file:
        file.write(b"not a model")
    os.replace(path + ".new", path)
    case.finish(case.streams(server, bodies), right)
    processes.kill(server.all_workers()[0])
    expect_end(case, server, ANY_FAILURE, "model.gguf|model")


def file_cut_while_running(case):
    """Cut in place: pages of it are gone for whoever has it mapped. Wrong tokens are not an answer."""
    path = damaged(case, "model.gguf", lambda path: None)
    bodies = mixed(2, longest=100)
    right = case.right(bodies)
    server = case.start(model=path)
    case.finish(case.streams(server, bodies), right)
    os.truncate(path, 4096)
    for stream, answer in zip(case.streams(server, bodies), right):
        eventually(lambda: not stream.thread.is_alive() or server.ended(), 60)
        assert stream.error or stream.broken or stream.result() == answer, stream.describe()
    if not server.ended():
        processes.kill(server.all_workers()[0])
    expect_end(case, server, ANY_FAILURE, "model.gguf")


def with_shm(options):
    """A private /dev/shm of these mount options."""
    return ["unshare", "--mount", "sh", "-c",
            f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"', "sh"]


def shared_memory(case):
    need_root()
    wish = body("Hello", 5)
    right = case.right([wish])[0]
    for options, text in (("size=64k", r"/dev/shm has \d+"), ("ro", "/dev/shm|shared memory")):
        server = case.start(wait=False, inside=with_shm(options))
        expect_end(case, server, ANY_FAILURE, text)
    # A segment of a life that is over does not disturb the next one.
    with case.serve(inside=with_shm("size=512m")) as server:
        shm = f"/proc/{server.supervisor()}/root/dev/shm"
        for name in ("quire-stale-1", "vader_segment.stale.0"):
            with open(os.path.join(shm, name), "wb") as file:
                file.write(b"\0" * 4096)
        processes.kill(server.all_workers()[0])
        server.wait_epoch(2)
        assert complete(server.http, wish) == right
        left = [name for name in os.listdir(shm) if not name.startswith(("quire-stale", "vader_segment.stale"))]
        mapped = processes.mapped_shm()
        assert all(name in mapped for name in left), f"not in use: {left}"


def addresses(case):
    """A port that is taken, hosts that do not exist, an agent that fails."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        for option in ("--port", "--grpc-port"):
            expect_end(case, case.start(option, port, wait=False), (69,), port)
    hosts = os.path.join(case.folder, "hosts")
    with open(hosts, "w") as file:
        file.write("no-such-host.invalid slots=2\n")
    secret = os.path.join(case.folder, "secret")
    with open(secret, "w") as file:
        file.write("between us\n")
    for_hosts = ("--hostfile", hosts, "--grpc-host", "0.0.0.0", "--grpc-insecure-private-network",
                 "--worker-secret-file", secret)
    expect_end(case, case.start(*for_hosts, wait=False), ANY_FAILURE,
               "no-such-host.invalid|mpirun could not launch|giving up|budget")
    expect_end(case, case.start(*for_hosts, wait=False,
                                env={"OMPI_MCA_plm_rsh_agent": "/bin/false"}), ANY_FAILURE,
               "mpirun could not launch|giving up|budget|host")


def memory(case):
    """A KV cache larger than the machine is refused before anything is allocated; a rank or the
    coordinator that the kernel ends for want of memory dies as by kill -9 (F1, F12)."""
    expect_end(case, case.start("--kv-cache-memory-bytes", "60T", wait=False), (64,),
               "--kv-cache-memory-bytes")
    bodies = mixed(4, longest=200)
    right = case.right(bodies)
    with case.serve() as server:
        streams = case.streams(server, bodies)
        wait_tokens(streams, 2)
        victim = server.all_workers()[1]
        with open(f"/proc/{victim}/oom_score_adj", "w") as file:
            file.write("1000")
        processes.kill(victim)
        case.finish(streams, right)


def supervisor_killed(case):
    """kill -9 of the supervisor: nobody is left; what is left of their files the next start sweeps."""
    server = case.start()
    streams = [Stream(server.http, body("Once upon a time", 1500))]
    wait_tokens(streams, 2)
    old = list(processes.descendants(server.process.pid))
    processes.kill(server.process.pid)
    server.process.wait()
    if not eventually(lambda: not any(map(processes.alive, old)), 5):
        raise AssertionError("still there: " + str([processes.stat(p) for p in old if processes.alive(p)]))
    processes.reap_adopted()
    streams[0].join(10)
    second = Server(case.settings, server.folder)
    case.servers.append(second)
    complete(second.http, body("Hello", 5))
    case.end(second)
