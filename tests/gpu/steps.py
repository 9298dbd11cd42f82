"""Runs the steps of a part under one clock, and remembers what is done.

A step is a function of a Part; it returns rows of results, or raises StepFailed with what went
wrong. A step that passed with this build is not run again; a step the part's time does not reach is
"late", and the next run begins there. Programs that a step starts are killed with their deadline.
"""

import os
import signal
import subprocess
import time
import traceback

PART_SECONDS = 470  # a command on a lent machine may run 10 minutes; a part stays under 8


class StepFailed(Exception):
    pass


class StepSkipped(Exception):
    """What the step needs is not on this machine; the message says what."""


def end(children):
    """In order where they listen (memory of a GPU, shared memory), else at once."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # a session of its own: only what we started
            child.wait()
    children.clear()


class Part:
    def __init__(self, name, results, build, again=False, seconds=PART_SECONDS, log=None):
        self.name, self.results, self.build, self.again = name, results, build, again
        self.deadline = time.monotonic() + seconds
        self.log = log
        self.children = []  # of the step
        self.kept = []      # of the part
        self.failed = []

    def left(self):
        return self.deadline - time.monotonic()

    def say(self, text):
        print(f"[{self.name}] {text}", flush=True)

    def step(self, name, work, needs=10):
        """`needs`: seconds below which it is not begun. Returns the rows, or None."""
        if not self.again and self.results.is_done(self.name, name, self.build):
            self.say(f"{name}: done before")
            return self.results.step(self.name, name).get("rows", [])
        if self.left() < needs:
            self.say(f"{name}: no time left; run the part again")
            self.failed.append(name)
            self.record(name, "late", time.monotonic(), [], "")
            return None
        started = time.monotonic()
        rows, note, status = [], "", "passed"
        try:
            rows = work(self) or []
        except StepSkipped as reason:
            status, note = "skipped", str(reason)
        except StepFailed as error:
            status, note = "failed", str(error)
            rows = getattr(error, "rows", [])
        except Exception:  # a step's own mistake must not cost the other steps
            status, note = "failed", traceback.format_exc()
        finally:
            self.end_children()
        self.record(name, status, started, rows, note)
        self.say(f"{name}: {status}, {time.monotonic() - started:.0f} s")
        for line in note.splitlines()[-15:]:
            self.say(f"  {line}")
        if status == "failed":
            self.failed.append(name)
        return rows if status == "passed" else None

    def record(self, name, status, started, rows, note):
        self.results.record(self.name, name, {
            "status": status, "build": self.build, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": time.monotonic() - started, "rows": rows, "note": note[-4000:]})

    # Programs.

    def start(self, command, env=None, **options):
        child = subprocess.Popen(command, env=env, start_new_session=True, **options)
        self.children.append(child)
        return child

    def keep(self):
        """What the step has started so far outlives it: the next steps use it."""
        self.kept += self.children
        self.children.clear()

    def end_children(self):
        end(self.children)

    def end_kept(self):
        end(self.kept)

    def run(self, command, seconds=None, env=None, good=(0,)):
        """Runs to the end; stdout and stderr as text. Code 77 is a skip, other codes a failure."""
        limit = max(1, min(seconds or self.left(), self.left()))
        child = self.start(command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           errors="replace")
        try:
            output, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, _ = child.communicate()
            self.write_log(command, output, "killed")
            raise StepFailed(f"{command[0]}: not done in {limit:.0f} s\n{output[-3000:]}") from None
        self.children.remove(child)
        self.write_log(command, output, child.returncode)
        if child.returncode == 77:
            raise StepSkipped(output.strip().splitlines()[-1] if output.strip() else "no reason given")
        if child.returncode not in good:
            raise StepFailed(f"{' '.join(command)}: exit code {child.returncode}\n{output[-3000:]}")
        return output

    def write_log(self, command, output, code):
        if self.log is None:
            return
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"\n$ {' '.join(command)}\n{output}\n-> {code}\n")
