import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["quire", "quire-worker", "quire-coordinator", "bench_serve", "bench_cuda_attention", "bench_cuda_linear",
            "bench_cuda_meet"]
TESTS = ["gpu_ops_test", "gpu_golden_test"]
MODULES = ["libquire_cuda.so", "libquire_kernel_trace.so"]
MODELS = ["stories260K/hf", "tiny-random/llama-rope3", "tiny-random/llama-yarn-bias"]


@unittest.skipUnless(all(map(shutil.which, ("xz", "strip", "ldd", "git"))), "needs xz, strip, ldd and git")
class BundleTest(unittest.TestCase):
    """Over a build folder whose programs are one small program of the system."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = os.path.join(folder.name, "build")
        self.data = os.path.join(folder.name, "data")
        self.out = os.path.join(folder.name, "out")
        small = shutil.which("sed")
        for name in PROGRAMS + MODULES:
            self.copy(small, os.path.join(self.build, "bin", name))
        for name in TESTS:
            self.copy(small, os.path.join(self.build, "tests", name))
        for name in MODELS:
            self.copy(__file__, os.path.join(self.data, "data/models", name, "golden.json"))

    def copy(self, from_path, to_path):
        os.makedirs(os.path.dirname(to_path), exist_ok=True)
        shutil.copy(from_path, to_path)

    def bundle(self, **env):
        return subprocess.run(
            [os.path.join(HERE, "bundle.sh"), "--no-build", "--build", self.build, "--out", self.out],
            env=dict(os.environ, QUIRE_TEST_DATA=self.data, **env), capture_output=True, text=True, timeout=100,
            check=False)

    def test_holds_programs_models_and_the_libraries_they_need(self):
        done = self.bundle()
        self.assertEqual(done.returncode, 0, done.stderr)
        with tarfile.open(os.path.join(self.out, "bundle.tar.xz")) as tar:
            names = {name.removeprefix("./") for name in tar.getnames()}
        for name in PROGRAMS + TESTS + MODULES:
            self.assertIn(f"bin/{name}", names)
        for name in MODELS:
            self.assertIn(f"data/models/{name}/golden.json", names)
        libraries = [name for name in names if name.startswith("lib/")]
        self.assertTrue(libraries)
        self.assertFalse([name for name in libraries if name.startswith("lib/libc.so")])
        with open(os.path.join(self.out, "facts.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["architecture"], "90a")

    def test_more_than_may_travel_is_refused_and_removed(self):
        done = self.bundle(QUIRE_GPU_BUNDLE_LIMIT="100000")
        self.assertEqual(done.returncode, 1)
        self.assertIn("100000 may", done.stderr)
        self.assertFalse(os.path.exists(self.out))

    def test_a_missing_model_is_named(self):
        shutil.rmtree(os.path.join(self.data, "data/models/tiny-random/llama-rope3"))
        done = self.bundle()
        self.assertEqual(done.returncode, 66)
        self.assertIn("llama-rope3", done.stderr)


if __name__ == "__main__":
    unittest.main()
