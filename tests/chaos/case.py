"""What a fault's function gets: a folder, the oracle, servers that are checked at their end, and a
place for what was seen."""

import contextlib
import os
import signal

import oracle as oracles
from client import Stream
from server import Server


class Skipped(Exception):
    """This machine cannot show it; the text says why."""


class Case:
    def __init__(self, settings, oracle, folder):
        self.settings, self.oracle, self.folder = settings, oracle, folder
        self.servers = []
        self.notes = []

    def note(self, text):
        """A figure for the table, beside ok."""
        self.notes.append(text)

    def start(self, *options, **how):
        """A server that the case ends itself; killed if it does not."""
        server = Server(self.settings, os.path.join(self.folder, f"tmp{len(self.servers)}"), *options, **how)
        self.servers.append(server)
        return server

    @contextlib.contextmanager
    def serve(self, *options, epoch=None, code=0, **how):
        """A server that must be idle after the block, in this epoch if one is given, stop with
        `code` when asked to, and leave nothing behind."""
        server = self.start(*options, **how)
        yield server
        server.settle()
        if epoch is not None and server.epoch() != epoch:
            raise AssertionError(f"epoch {server.epoch()} instead of {epoch}\n{server.tail()}")
        self.end(server, code)

    def end(self, server, code=0):
        got = server.stop(signal.SIGTERM)
        if got != code:
            raise AssertionError(f"it ended with {got} instead of {code}\n{server.tail()}")
        self.nothing_left(server)

    def nothing_left(self, server):
        if left := server.left_behind():
            raise AssertionError("left behind: " + ", ".join(left[:8]))

    def streams(self, server, bodies, keys=None, patient=False):
        return [Stream(server.http, wish, key=keys[i] if keys else None, patient=patient)
                for i, wish in enumerate(bodies)]

    def right(self, bodies):
        """Before the fault: the oracle and the server under test do not compete for the cores."""
        return self.oracle.answers(bodies)

    def finish(self, streams, expected, seconds=240):
        for stream in streams:
            stream.join(seconds)
        oracles.compare(streams, expected)

    def close(self):
        for server in self.servers:
            if not server.ended():
                server.kill()


def need_root():
    if os.geteuid() != 0:
        raise Skipped("needs root")
