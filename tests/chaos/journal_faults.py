"""The journal's disk is full, fails or rots."""

import os
import resource
import sqlite3

import client
from case import need_root
from client import complete, wait_tokens
from oracle import body, mixed
from processes import eventually


def refused_with(server, code):
    try:
        complete(server.http, body("Hello", 3))
    except client.Refused as refused:
        return refused.code == code and refused.status == 503
    return False


def accepted(server):
    try:
        complete(server.http, body("Hello", 3))
        return True
    except client.Refused:
        return False


def refuses_while(case, server, break_it, mend_it):
    """Streams run; the journal breaks: new requests are refused, those that run finish; it is mended:
    requests are accepted again."""
    bodies = mixed(6)
    right = case.right(bodies)
    streams = case.streams(server, bodies)
    wait_tokens(streams, 5)
    break_it()
    if not eventually(lambda: refused_with(server, "journal_unavailable"), 30, 0.1):
        raise AssertionError("requests are still accepted\n" + server.tail())
    case.finish(streams, right)
    mend_it()
    if not eventually(lambda: accepted(server), 60, 0.2):
        raise AssertionError("requests are still refused\n" + server.tail())
    case.finish(case.streams(server, bodies), right)


def full_disk(case):
    """A tmpfs of 2 MB that others fill."""
    need_root()
    place = os.path.join(case.folder, "disk")
    os.makedirs(place)
    inside = ["unshare", "--mount", "sh", "-c",
              f'mount -t tmpfs -o size=2m tmpfs "{place}" && exec "$@"', "sh"]
    with case.serve("--journal", os.path.join(place, "journal.db"), inside=inside) as server:
        # The server's mount, seen through /proc.
        filler = f"/proc/{server.supervisor()}/root{place}/filler"

        def fill():
            with open(filler, "wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 4096):
                        pass
                except OSError:
                    pass

        refuses_while(case, server, fill, lambda: os.unlink(filler))


def failing_writes(case):
    """The coordinator may not make any file longer: every append fails as on a broken disk."""
    with case.serve("--journal", os.path.join(case.folder, "journal.db"),
                    ignore_file_size_signal=True) as server:
        limit = resource.prlimit(server.coordinator(), resource.RLIMIT_FSIZE)
        pid = server.coordinator()
        refuses_while(case, server,
                      lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limit[1])),
                      lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, limit))


def nowhere_to_write(case):
    """A journal that cannot be made is said at the start."""
    path = os.path.join(case.folder, "nowhere", "below", "journal.db")
    with open(os.path.join(case.folder, "nowhere"), "w"):
        pass  # a file where a folder should be
    server = case.start("--journal", path, wait=False)
    code = server.wait_end(60)
    assert code != 0 and server.find(path), f"exit code {code}\n{server.tail()}"
    case.nothing_left(server)


def killed_in_two_streams(case):
    """What a server that was killed as a whole leaves: its journal, its streams, and what is right."""
    journal = os.path.join(case.folder, "journal.db")
    bodies = [body("Once upon a time", 900), body("Dear reader,", 900)]
    right = case.right(bodies)
    first = case.start("--journal", journal)
    streams = case.streams(first, bodies)
    wait_tokens(streams, 20)
    first.kill()
    for stream in streams:
        stream.join(10)
    return journal, streams, right


def flipped_bits(case):
    """Of two unfinished requests one row rots: it is named and skipped, the other request goes on."""
    journal, streams, right = killed_in_two_streams(case)
    rot_a_row(journal)
    server = case.start("--journal", journal)
    assert server.find(r"(?i)journal.*(skip|damaged|corrupt|checksum)"), "nothing said\n" + server.tail()
    for stream in streams:
        stream.url = server.http
        stream.resume()
        stream.join()
    whole = [stream for stream, one in zip(streams, right) if stream.result() == one]
    assert len(whole) >= 1, "both requests were lost: " + "; ".join(s.describe() for s in streams)
    for stream, one in zip(streams, right):
        assert stream in whole or stream.error, "a wrong answer: " + stream.describe()
    server.settle()
    case.end(server)


def rot_a_row(journal):
    """One bit of one request, with the row's checksum as it was."""
    database = sqlite3.connect(journal)
    row, blob = database.execute("SELECT id, blob FROM requests ORDER BY id LIMIT 1").fetchone()
    database.execute("UPDATE requests SET blob = ? WHERE id = ?", (bytes([blob[0] ^ 1]) + blob[1:], row))
    database.commit()
    database.close()


def torn_tail(case):
    """The last bytes of the write-ahead log are missing, as after a loss of power. Who has read more
    than the file knows of is told so and begins again; nobody gets a wrong or doubled token."""
    journal, streams, right = killed_in_two_streams(case)
    log = journal + "-wal"
    os.truncate(log, os.path.getsize(log) - 1000)
    with case.serve("--journal", journal) as server:
        ahead = 0
        for stream in streams:
            stream.url = server.http
            stream.resume().join()
            if stream.error is not None and "Last-Event-ID" in stream.error.message:
                ahead += 1
                stream.resume(from_the_beginning=True)
        case.finish(streams, right)
        case.note(f"{ahead} of {len(streams)} were ahead")


def private_file(case):
    """Mode 0600, and no symbolic link is followed."""
    journal = os.path.join(case.folder, "journal.db")
    with case.serve("--journal", journal):
        mode = os.stat(journal).st_mode & 0o777
        assert mode == 0o600, oct(mode)
    victim = os.path.join(case.folder, "victim")
    with open(victim, "w") as file:
        file.write("mine")
    link = os.path.join(case.folder, "link.db")
    os.symlink(victim, link)
    server = case.start("--journal", link, wait=False)
    code = server.wait_end(60)
    assert code != 0 and server.find(link), f"exit code {code}\n{server.tail()}"
    with open(victim) as file:
        assert file.read() == "mine"
    case.nothing_left(server)
