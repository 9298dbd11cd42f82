"""What /proc says of processes, and how a test ends only its own: everything started here is a
descendant of this process (which adopts orphans), and whatever is signalled is looked up there."""

import ctypes
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """Processes whose parent dies become children of this one, where they can be seen and reaped."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def stat(pid):
    """(name, state, parent) or None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    name, rest = text[text.index("(") + 1:].rsplit(")", 1)
    fields = rest.split()
    return name, fields[0], int(fields[1])


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root):
    """{pid: (name, state, parent)} of everything below root, without root."""
    known = {pid: found for pid in all_pids() if (found := stat(pid))}
    below, frontier = {}, {root}
    while frontier:
        frontier = {pid for pid, found in known.items() if found[2] in frontier and pid not in below}
        below.update((pid, known[pid]) for pid in frontier)
    return below


def named(root, name):
    """Living descendants of root that run the program `name` (the kernel cuts names to 15)."""
    return sorted(pid for pid, (found, state, _) in descendants(root).items()
                  if found == name[:15] and state not in "ZX")


def alive(pid):
    found = stat(pid)
    return found is not None and found[1] not in "ZX"


def send(pid, number):
    """True if the process was there."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def kill(pid):
    return send(pid, signal.SIGKILL)


def reap_adopted(keep=()):
    """Collects those of our children that have died, but for `keep`, which others wait for."""
    for pid, (_, state, parent) in descendants(os.getpid()).items():
        if state == "Z" and parent == os.getpid() and pid not in keep:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def rss_bytes(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def num_fds(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def shm_names():
    """What servers and their Open MPI leave in /dev/shm; other tests have folders there."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("quire.", "vader_segment.", "ompi", "sem."))}


def mapped_shm():
    """Names in /dev/shm that some living process has mapped or open."""
    names = set()
    for pid in all_pids():
        try:
            with open(f"/proc/{pid}/maps", errors="replace") as file:
                names.update(line.split("/dev/shm/", 1)[1].split(" (deleted)")[0].strip()
                             for line in file if "/dev/shm/" in line)
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("/dev/shm/"):
                    names.add(target[len("/dev/shm/"):])
        except OSError:
            continue
    return names


def eventually(condition, seconds=30.0, pause=0.01):
    """The condition's first true value, or its last one when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            return value
        time.sleep(pause)
    return value
