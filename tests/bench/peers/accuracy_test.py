"""Accuracy of peers: what is read and written, and what is refused. No peer is brought."""

import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
sys.path.insert(0, os.path.join(ROOT, "bench/peers"))

import accuracy  # noqa: E402
import engines  # noqa: E402
import texts  # noqa: E402


def main(*arguments):
    """(exit status, what was said)"""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            return accuracy.main(list(arguments)), said.getvalue()
        except SystemExit as end:
            return end.code, said.getvalue()


class Texts(unittest.TestCase):
    def test_goldens_and_as_many_windows_as_are_wanted(self):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "reference/smollm2"))
            golden = {"items": [{"prompt_ids": [1, 2], "output_ids": [3]}, {"prompt_ids": [4], "output_ids": [5, 6]}]}
            windows = {"windows": [{"ids": [7, 8], "nll": 1.0}, {"ids": [9], "nll": 2.0}]}
            for name, content in (("golden.dev.json", golden), ("ppl.json", windows)):
                with open(os.path.join(folder, "reference/smollm2", name), "w", encoding="utf-8") as file:
                    json.dump(content, file)
            self.assertEqual(texts.read(folder, 1), ([([1, 2], [3]), ([4], [5, 6])], [[7, 8]]))
            self.assertEqual(texts.read(folder, 40)[1], [[7, 8], [9]])

    def test_the_file_is_what_bench_accuracy_reads(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "peer.json")
            texts.write(path, "a peer", [-0.5, -1.0], [True, False], [2.0])
            with open(path, encoding="utf-8") as file:
                self.assertEqual(json.load(file), {"name": "a peer", "golden": [-0.5, -1.0], "argmax": [1, 0],
                                                   "nll": [2.0]})


class Options(unittest.TestCase):
    def test_every_scorer_is_there_and_belongs_to_an_engine(self):
        for name, script in accuracy.SCORERS.items():
            self.assertIn(name, engines.BY_NAME)
            self.assertTrue(os.path.exists(os.path.join(ROOT, "bench/peers", script)))

    def test_refusals_name_what_is_wrong(self):
        self.assertIn("there is no peer `llama.cpp`; there are hf, vllm", main("--only", "llama.cpp")[1])
        self.assertIn("`-1` is not a number of windows", main("--windows=-1")[1])
        code, said = main("--model", "/nowhere.gguf")
        self.assertEqual(code, 66)
        self.assertIn("there is no /nowhere.gguf", said)


if __name__ == "__main__":
    unittest.main()
