import glob
import io
import json
import os
import subprocess
import tarfile
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
# What a GPU test program says, as far as run.py reads it.
PASSES = "#!/bin/sh\necho '[==========] 3 tests from 1 test suite ran. (1 ms total)'\necho '[  PASSED  ] 3 tests.'\n"
FAILS = "#!/bin/sh\necho '[  FAILED  ] one'\nexit 1\n"
SANITIZER = "#!/bin/sh\nwhile [ \"${1#--}\" != \"$1\" ]; do shift 2; done\n\"$@\"\necho '========= ERROR SUMMARY: 0 errors'\n"


class RunTest(unittest.TestCase):
    """run.sh over a bundle and an nvidia-smi of shell scripts."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.out = os.path.join(self.root, "out")
        self.bundle = os.path.join(self.root, "bundle")
        os.makedirs(self.bundle)
        self.script("tools/nvidia-smi", "#!/bin/sh\necho 'NVIDIA Fake 1, 580.1, 81559'\n")
        self.script("tools/compute-sanitizer", SANITIZER)
        self.pack({"gpu_ops_test": PASSES, "gpu_golden_test": FAILS,
                   "quire-worker": "#!/bin/sh\necho 'GPU 0  NVIDIA Fake 1'\n"}, "one")

    def script(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o755)

    def pack(self, programs, commit):
        with tarfile.open(os.path.join(self.bundle, "bundle.tar.xz"), "w:xz") as tar:
            for name, text in programs.items():
                info = tarfile.TarInfo(f"bin/{name}")
                info.size, info.mode = len(text), 0o755
                tar.addfile(info, io.BytesIO(text.encode()))
        with open(os.path.join(self.bundle, "facts.json"), "w", encoding="utf-8") as file:
            json.dump({"commit": commit, "sum": commit, "architecture": "90a"}, file)

    def run_sh(self, *arguments, with_gpu=True):
        path = os.path.join(self.root, "tools") + ":" + os.environ["PATH"] if with_gpu else "/nowhere"
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-B", os.path.join(HERE, "run.py"), *arguments] if with_gpu else
            [subprocess.sys.executable, "-B", os.path.join(HERE, "run.py"), *arguments],
            env=dict(os.environ, PATH=path, OUT=self.out, QUIRE_GPU_BUNDLE=self.bundle), capture_output=True,
            text=True, timeout=100, check=False)
        return done.returncode, done.stdout + done.stderr

    def results(self):
        (path,) = glob.glob(os.path.join(self.out, "gpu-nvidia-fake-1-*.json"))
        with open(path, encoding="utf-8") as file:
            return json.load(file)["parts"]

    def test_steps_are_recorded_skipped_when_done_and_run_again_when_asked(self):
        code, text = self.run_sh("sanitizer")
        self.assertEqual(code, 1, text)
        steps = self.results()["sanitizer"]["steps"]
        self.assertEqual(steps["memcheck: row"]["status"], "passed")
        self.assertEqual(steps["memcheck: row"]["rows"][0]["tests"], 3)
        self.assertEqual(steps["memcheck: a whole model"]["status"], "failed")
        _, text = self.run_sh("sanitizer")
        self.assertIn("memcheck: row: done before", text)
        self.assertNotIn("memcheck: a whole model: done before", text)
        _, text = self.run_sh("sanitizer", "--again")
        self.assertNotIn("done before", text)
        self.pack({"gpu_ops_test": FAILS, "gpu_golden_test": FAILS}, "two")
        _, text = self.run_sh("sanitizer")
        self.assertIn("memcheck: row: failed", text)

    def test_parts_are_merged_into_one_file(self):
        self.run_sh("sanitizer")
        self.run_sh("build+ops")
        self.assertEqual(set(self.results()), {"sanitizer", "build+ops"})
        self.assertEqual(self.results()["build+ops"]["steps"]["devices"]["status"], "passed")

    def test_a_machine_without_a_gpu_runs_nothing(self):
        code, text = self.run_sh("ranks", with_gpu=False)
        self.assertEqual(code, 77, text)
        self.assertIn("no GPU here", text)
        self.assertFalse(os.path.exists(self.out))

    def test_without_a_bundle_it_says_how_to_make_one(self):
        os.unlink(os.path.join(self.bundle, "facts.json"))
        code, text = self.run_sh("ranks")
        self.assertEqual(code, 66)
        self.assertIn("bundle.sh", text)


if __name__ == "__main__":
    unittest.main()
