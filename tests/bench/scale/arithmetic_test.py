"""The arithmetic of bench/scale, against figures that are known otherwise."""

import os
import subprocess
import sys
import unittest

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "..", "bench", "scale")
sys.path.append(FOLDER)
import arithmetic  # pylint: disable=wrong-import-position

MODELS = {name: arithmetic.Model.read(name, folder) for name, folder in arithmetic.MODELS}
GPUS = {gpu.name: gpu for gpu in arithmetic.GPUS}


class ArithmeticTest(unittest.TestCase):
    def test_parameters_and_kv_are_those_of_the_models(self):
        for name, products, kv in (("LLaMA-7B", 6.61e9, 524288), ("LLaMA-13B", 12.85e9, 819200),
                                   ("Llama-3-8B", 7.50e9, 131072), ("Llama-3-70B", 69.5e9, 327680)):
            with self.subTest(name):
                self.assertAlmostEqual(MODELS[name].products / products, 1, delta=0.005)
                self.assertEqual(MODELS[name].kv_bytes, kv)

    def test_a_step_reads_the_weights_at_least(self):
        step, reduce = arithmetic.decode_s(MODELS["Llama-3-8B"], GPUS["H100"], 1, 1, 512)
        self.assertGreater(step, 15.0e9 / 3.35e12)
        self.assertLess(step, 2 * 15.0e9 / 3.35e12)
        self.assertEqual(reduce, 0)

    def test_more_ranks_are_faster_and_spend_a_larger_share_on_sums(self):
        shares, steps = [], []
        for ranks in (2, 4, 8):
            step, reduce = arithmetic.decode_s(MODELS["Llama-3-70B"], GPUS["H100"], ranks, 64, 1024)
            steps.append(step)
            shares.append(reduce / step)
        self.assertEqual(steps, sorted(steps, reverse=True))
        self.assertEqual(shares, sorted(shares))

    def test_what_does_not_fit_takes_more_ranks(self):
        self.assertEqual(arithmetic.ranks_for(MODELS["Llama-3-8B"], GPUS["H100"]), 1)
        self.assertEqual(arithmetic.ranks_for(MODELS["Llama-3-70B"], GPUS["H100"]), 2)
        tiny = arithmetic.dataclasses.replace(GPUS["A10G"], memory=1e9)
        self.assertIsNone(arithmetic.ranks_for(MODELS["LLaMA-7B"], tiny))
        self.assertIn("more than 8", arithmetic.row(MODELS["LLaMA-7B"], tiny, 1024))

    def test_a_context_that_does_not_fit_has_no_price(self):
        self.assertIn("does not fit", arithmetic.row(MODELS["LLaMA-7B"], GPUS["A100-40"], 100000))

    def test_a_page_that_cannot_be_written_gets_a_sentence(self):
        done = self.run_it("--out", "/nonexistent/page.md")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--out", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def run_it(self, *options):
        return subprocess.run([sys.executable, "-B", os.path.join(FOLDER, "arithmetic.py"), *options],
                              capture_output=True, text=True, timeout=30)

    def test_a_price_is_the_users(self):
        cheap, dear = (self.run_it("--price", f"H200={price}").stdout.splitlines() for price in (1, 10))
        last = lambda lines: float(next(l for l in lines if "| Llama-3-70B | H200 |" in l).split("|")[-2])
        self.assertAlmostEqual(last(dear) / last(cheap), 10, delta=0.5)

    def test_bad_prices_get_a_sentence(self):
        for price in ("H300=1", "H200", "H200=free", "H200=-1", "H200=inf"):
            done = self.run_it("--price", price)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("--price", done.stderr)


if __name__ == "__main__":
    unittest.main()
