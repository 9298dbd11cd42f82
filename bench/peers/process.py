"""Processes that we start: with a log, a deadline for every wait, what they cost, and an end by their ids."""

import os
import select
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A step that could not be done; the text is for the report."""


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            found = [int(child) for child in file.read().split()]
    except OSError:
        return []
    # A child may be another thread's: those are in its own list.
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        pass
    return sorted(set(found))


def tree_of(pid):
    pids, wave = [], [pid]
    while wave:
        pids += wave
        wave = [child for parent in wave for child in children_of(parent) if child not in pids]
    return pids


def pss_bytes(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += sum(1024 * int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return total / TICKS


def machine_busy_seconds():
    """CPU time that this machine's cores were not idle, what a hypervisor took away included."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def telling(lines):
    """The last of a program's lines that sounds like a reason, or else the last."""
    reasons = [line for line in lines if any(word in line for word in ("rror", "giving up", "unable", "ailed"))]
    return (reasons or lines or ["it printed nothing"])[-1][-300:]


class Started:
    """A running program; `log` gets what it prints, unless `pipes` (then lines go both ways)."""

    def __init__(self, argv, log, env=None, pipes=False):
        self.log = log
        self.began = time.monotonic()
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out, stderr=out, env={**os.environ, **(env or {})},
                start_new_session=True)

    def pids(self):
        return tree_of(self.process.pid)

    def alive(self):
        return self.process.poll() is None

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        return telling(lines)

    def read_line(self, within_s):
        """One line of its standard output."""
        line = b""
        deadline = time.monotonic() + within_s
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"no answer within {within_s:.0f} s")
            piece = os.read(self.process.stdout.fileno(), 1)
            if not piece:
                raise Failed(f"it ended: {self.last_words()}")
            line += piece
        return line.decode()

    def write_line(self, text):
        try:
            self.process.stdin.write(text.encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failed(f"it ended: {self.last_words()}") from error

    def stop(self, within_s=20):
        """In order first; then whatever of it is left is killed, by its id."""
        pids = self.pids()
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                pass
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any(is_running(pid, self.process.pid) for pid in pids[1:]):
            time.sleep(0.1)
        for pid in pids:
            if is_running(pid, self.process.pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def is_running(pid, session):
    """Whether `pid` is still a process of the session that we started (ids are used again)."""
    try:
        return os.getsid(pid) == session
    except OSError:
        return False


def run(argv, within_s, log=None, env=None, cwd=None):
    """What a program printed; Failed if it fails or takes too long."""
    began = time.monotonic()
    program = os.path.basename(argv[0])
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd,
                          env={**os.environ, **(env or {})}, text=True, errors="replace") as process:
        try:
            output, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as late:
            for pid in reversed(tree_of(process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            process.communicate()
            raise Failed(f"{program} did not end within {time.monotonic() - began:.0f} s") from late
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(argv)}\n{output}\n")
    if process.returncode != 0:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        raise Failed(f"{program} failed ({process.returncode}): {telling(lines)}")
    return output
