"""quire-group's rules, with an mpirun that does as it is told: which ends are followed by another life, what is
handed on, and which pods it waits for."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
sys.path.append(os.path.join(SOURCE, "tests", "chaos"))
from processes import eventually  # noqa: E402

# Notes its arguments, and ends with the next code of the list; "wait" until it is told to stop.
MPIRUN = """#!/bin/bash
echo "$@" >> "$FOLDER/starts"
code=$(sed -n "$(wc -l < "$FOLDER/starts")p" "$FOLDER/codes")
[ "$code" = wait ] || exit "$code"
trap 'echo told > "$FOLDER/told"; exit 1' TERM
touch "$FOLDER/waits"
while :; do sleep 0.05; done
"""


class Group(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.group = shutil.copy(os.path.join(SOURCE, "deploy", "container", "quire-group"), self.folder)
        with open(os.path.join(self.folder, "mpirun"), "w") as file:
            file.write(MPIRUN)
        os.chmod(file.name, 0o755)

    def launch(self, *codes, what=("launch", "--config", "f"), **env):
        with open(os.path.join(self.folder, "codes"), "w") as file:
            file.write("\n".join(map(str, codes)) + "\n")
        process = subprocess.Popen([self.group, *what], stderr=subprocess.PIPE, text=True, env={
            "PATH": f"{self.folder}:{os.environ['PATH']}", "FOLDER": self.folder, "TMPDIR": self.folder,
            "HOSTNAME": "pod-0", **env})
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def starts(self):
        with open(os.path.join(self.folder, "starts")) as file:
            return file.read().splitlines()

    def test_codes_that_another_life_cannot_mend_end_it(self):
        for code in (64, 65, 66, 77, 127):
            with self.subTest(code=code):
                process = self.launch(0, 75, code)
                self.assertEqual(process.wait(30), code)
                self.assertEqual(len(self.starts()), 3)
                self.assertIn("cannot mend", process.stderr.read())
            os.remove(os.path.join(self.folder, "starts"))

    def test_five_short_lives_end_it(self):
        process = self.launch(75, 137, 205, 76, 75, 0, 0)
        self.assertEqual(process.wait(60), 75)
        self.assertEqual(len(self.starts()), 5)
        self.assertIn("5 times in a row", process.stderr.read())

    def test_a_signal_is_handed_on_and_waited_for(self):
        process = self.launch(75, "wait")
        self.assertTrue(eventually(lambda: os.path.exists(os.path.join(self.folder, "waits"))))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)
        self.assertTrue(os.path.exists(os.path.join(self.folder, "told")))
        self.assertEqual(len(self.starts()), 2)

    def test_ranks_get_their_options_and_the_settings_of_their_devices(self):
        self.launch(64, NCCL_DEBUG="WARN", QUIRE_CACHE="/c", SECRET="s").wait(30)
        self.assertEqual(sorted(re.findall(r"-x (\S+)", self.starts()[0])), ["NCCL_DEBUG", "QUIRE_CACHE"])
        self.assertTrue(self.starts()[0].endswith(f"{self.folder}/quire-worker --config f"), self.starts())

    def test_one_pod_is_a_group_of_its_own(self):
        self.launch(64, what=("run", "model"), QUIRE_SLOTS="3").wait(30)
        hostfile = re.match(r"--hostfile (\S+)", self.starts()[0])[1]
        with open(hostfile) as file:
            self.assertEqual(file.read(), f"{os.uname().nodename} slots=3\n")

    def test_which_pods_are_waited_for(self):
        lws = {"LWS_LEADER_ADDRESS": "quire-worker-1.quire-worker.quire", "LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "0"}
        stateful = {"QUIRE_PODS": "2", "QUIRE_LEADER": "quire-worker-0.quire-worker"}
        for env, pod in ((lws, "quire-worker-1-1.quire-worker.quire"), (stateful, "quire-worker-1.quire-worker")):
            process = self.launch(what=("run", "model"), QUIRE_SLOTS="2", QUIRE_PODS_WITHIN="0", **env)
            self.assertEqual(process.wait(30), 75)
            self.assertIn(f"pod {pod} did not come", process.stderr.read())

    def test_it_says_what_is_missing(self):
        process = self.launch(what=("run", "model"))
        self.assertNotEqual(process.wait(30), 0)
        self.assertIn("QUIRE_SLOTS must say", process.stderr.read())
        process = self.launch(what=("ready",), QUIRE_COORDINATOR_PORT="1")
        self.assertEqual(process.wait(30), 1)
        self.assertIn("0 of 1 ranks are attached", process.stderr.read())
        process = self.launch(what=())
        self.assertEqual(process.wait(30), 64)
        self.assertIn("quire-group run OPTIONS", process.stderr.read())


if __name__ == "__main__":
    unittest.main(verbosity=2)
