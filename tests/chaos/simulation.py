"""Rows that other programs show, or that nothing here can."""

import os
import subprocess

from case import Skipped


def skip(reason):
    def show(_):
        raise Skipped(reason)
    return show


def seeds_of(name):
    """A program of tests/simulation at the length of a long run."""
    def show(case):
        run_seeds(case, name)
    return show


def run_seeds(case, name):
    program = os.path.join(case.settings.bin, "..", "tests", name)
    if not os.path.exists(program):
        raise Skipped(name + " is not built")
    done = subprocess.run([program, "--gtest_brief=1"], capture_output=True, text=True, timeout=3000,
                          env={**os.environ, "QUIRE_SIM_SEEDS": "10000"}, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
