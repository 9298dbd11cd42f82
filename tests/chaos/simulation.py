"""Rows that other programs show, or that nothing here can."""

import os
import subprocess

from case import Skipped


def skip(reason):
    def show(_):
        raise Skipped(reason)
    return show


def scheduler_seeds(case):
    """tests/simulation at the length of a long run."""
    program = os.path.join(case.settings.bin, "..", "tests", "scheduler_simulation_test")
    if not os.path.exists(program):
        raise Skipped("scheduler_simulation_test is not built")
    done = subprocess.run([program, "--gtest_brief=1"], capture_output=True, text=True, timeout=3000,
                          env={**os.environ, "QUIRE_SIM_SEEDS": "10000"}, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
