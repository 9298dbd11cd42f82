"""What the soak does to a server, and what it watches: memory, descriptors and shared memory of every
process, by what the process is."""

import collections
import os
import random
import signal
import statistics
import threading
import time

import processes

ROLES = ("quire-supervisor", "quire-coordinator", "mpirun", "quire-worker")
MEGABYTE = 1 << 20
ALLOWED_GROWTH = 0.15  # of what it had, and 16 MB for what is allocated once
ALLOWED_BYTES = 16 * MEGABYTE


class Trouble:
    def __init__(self, server, coordinator, seed):
        self.server, self.dice = server, random.Random(seed)
        self.kinds = [self.one_rank, self.one_rank, self.all_ranks, self.mpirun, self.sleep]
        if coordinator:
            self.kinds += [self.coordinator, self.coordinator]
        self.made = collections.Counter()

    def make(self):
        kind = self.dice.choice(self.kinds)
        done = kind()
        name = kind.__name__.replace("_", " ") if done else "nobody was there"
        self.made[name] += 1
        return name

    def one_rank(self):
        workers = self.server.workers()
        return bool(workers) and processes.kill(self.dice.choice(workers))

    def all_ranks(self):
        return sum(processes.kill(pid) for pid in self.server.workers()) > 0

    def mpirun(self):
        return sum(processes.kill(pid) for pid in self.server.named("mpirun")) > 0

    def sleep(self):
        """A rank stops for 1 s."""
        workers = self.server.workers()
        if not workers:
            return False
        pid = self.dice.choice(workers)
        stopped = processes.send(pid, signal.SIGSTOP)
        threading.Timer(1.0, processes.send, (pid, signal.SIGCONT)).start()
        return stopped

    def coordinator(self):
        pid = self.server.coordinator()
        return pid is not None and processes.kill(pid)


class Watch:
    """`rows`: (seconds, role, bytes, descriptors), a row per process and look."""

    def __init__(self, server):
        self.server, self.began = server, time.monotonic()
        self.rows, self.shm = [], []

    def look(self):
        now = time.monotonic() - self.began
        for role in ROLES:
            for pid in self.server.named(role):
                if size := processes.rss_bytes(pid):
                    self.rows.append((now, role, size, processes.num_fds(pid)))
        self.shm.append(len(processes.shm_names() - self.server.shm_before))

    def halves(self, role, column):
        """Medians of the second and of the last quarter: the first is warming up."""
        own = [row for row in self.rows if row[1] == role]
        if len(own) < 12:
            return None
        last = max(row[0] for row in self.rows)
        early = [row[column] for row in own if last / 4 <= row[0] < last / 2]
        late = [row[column] for row in own if row[0] >= last * 3 / 4]
        return (statistics.median(early), statistics.median(late)) if early and late else None

    def growth(self):
        problems = []
        for role in ROLES:
            if (found := self.halves(role, 2)) is not None:
                early, late = found
                if late > early * (1 + ALLOWED_GROWTH) + ALLOWED_BYTES:
                    problems.append(f"{role} grew from {early / MEGABYTE:.0f} to {late / MEGABYTE:.0f} MB")
            if (found := self.halves(role, 3)) is not None and found[1] > found[0] + 64:
                problems.append(f"{role} has {found[1]:.0f} descriptors, and had {found[0]:.0f}")
        return problems
