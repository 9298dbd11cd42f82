"""The roofline's own code: what it runs, how it reads what the benchmarks print, its tables and plots. Nothing is
measured."""

import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
sys.path.insert(0, os.path.join(ROOT, "bench/kernels"))

import roofline  # noqa: E402
import roofline_table as table  # noqa: E402


def product(tokens=1, seconds=1e-3, fmt="q4_1", **more):
    return json.dumps({"model": "smollm2-135m", "shape": "o", "format": fmt, "rows": 576, "columns": 576,
                       "tokens": tokens, "threads": 2, "isa": "avx512", "seconds": seconds, "bytes": 2e7,
                       "ops": 4e7 * tokens, "read_per_s": 4e10, "ops_per_s": 8e11, **more})


def attention(name, time=2.0, **rates):
    return {"name": f"{name}/real_time", "run_type": "iteration", "real_time": time, "time_unit": "ms", **rates}


CEILINGS = [attention("ceiling/read", bytes=4e10), attention("ceiling/fma", ops=1e11),
            attention("ceiling/dpbf16", ops=4e11), attention("ceiling/dpbusd", ops=8e11)]


def attention_text(*cases):
    mean = {**attention("decode/smollm2/float32/9x128"), "run_type": "aggregate"}
    return json.dumps({"context": {}, "benchmarks": [mean, *cases, *CEILINGS]})


def saved(folder, name="runs.json", **more):
    results = {"date": "2026-01-02", "machine": "a CPU", "commit": "abc", "threads": 2, "quick": False, "load": 0.5,
               "others": 0.04, "points": table.linear_points(product()), **more}
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(results, file)
    return path


def main(*arguments):
    """(exit status, what was said)"""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            return roofline.main(list(arguments)), said.getvalue()
        except SystemExit as end:
            return end.code, said.getvalue()


class Commands(unittest.TestCase):
    def test_each_model_gets_both_benchmarks(self):
        runs = [command for _, command in roofline.commands(roofline.parse(["--threads", "3"]))]
        self.assertEqual([run[0] for run in runs], ["bench_linear", "bench_attention"] * 3)
        self.assertIn("--shapes=llama-3.2-1b", runs[2])
        self.assertIn("decode/llama-1b/", " ".join(runs[3]))
        self.assertTrue(all("--threads=3" in run for run in runs))
        self.assertEqual(runs[1][-1], "--threads=3")  # as bench_attention wants it

    def test_only_and_quick_mean_less(self):
        runs = roofline.commands(roofline.parse(["--only", "llama-8b", "--quick"]))
        self.assertEqual(len(runs), 2)
        self.assertIn("--tokens=1,16,512", runs[0][1])

    def test_refusals_name_what_is_wrong(self):
        self.assertIn("there is no model `gpt`", main("--only", "gpt")[1])
        self.assertIn("`none` is not a number of threads", main("--threads", "none")[1])
        with tempfile.TemporaryDirectory() as folder:
            code, said = main("--bin", folder, "--out", folder)
            self.assertEqual((code, os.listdir(folder)), (1, []))
            self.assertIn(f"there is no bench_linear in {folder}", said)


class Points(unittest.TestCase):
    def test_a_product_is_compared_with_the_nearer_limit(self):
        reads, computes = table.linear_points(product() + "\n" + product(tokens=16))
        self.assertAlmostEqual(table.of_limit(reads), 50)  # 20 MB at 40 GB/s are half of the millisecond
        self.assertAlmostEqual(table.of_limit(computes), 80)  # 640 million operations of 800
        self.assertEqual((table.cell(reads), table.cell(computes)), ("20 (50)", "640 (80)"))

    def test_an_unknown_peak_leaves_memory(self):
        self.assertAlmostEqual(table.of_limit(table.linear_points(product(tokens=16, ops_per_s=0))[0]), 50)

    def test_all_matrices_together_have_no_size(self):
        self.assertEqual(table.linear_points(product(shape="layers", rows=0, columns=0))[0]["row"], "layers")

    def test_attention_has_the_ceiling_of_its_instruction(self):
        points = table.attention_points(attention_text(
            attention("prefill/smollm2/float32/512@1024", bytes=1e9, ops=5e10),
            attention("decode/smollm2/bfloat16/36x1024", bytes=2e10, ops=4e10)))
        self.assertEqual([(p["row"], p["format"], p["column"]) for p in points],
                         [("decode", "bfloat16", 1024), ("prefill, 512 tokens", "float32", 1024)])
        self.assertEqual([p["ops_per_s"] for p in points], [4e11, 1e11])
        self.assertAlmostEqual(points[0]["bytes"], 2e10 * 2e-3)
        self.assertEqual([table.cell(p) for p in points], ["20 (50)", "50 (50)"])

    def test_the_shortest_context_is_one_chunk(self):
        point, = table.attention_points(attention_text(
            attention("prefill/smollm2/float32/128@128", bytes=1e9, ops=5e10)))
        self.assertEqual((point["row"], point["column"]), ("prefill, 512 tokens", 128))

    def test_the_fastest_of_repetitions_counts(self):
        points = table.linear_points("\n".join([product(seconds=3e-3), product(seconds=2e-3), product(fmt="bf16")]))
        self.assertEqual([p["seconds"] for p in table.fastest(points)], [2e-3, 1e-3])


class Results(unittest.TestCase):
    def test_saved_runs_become_a_table_and_a_plot(self):
        with tempfile.TemporaryDirectory() as folder:
            path = saved(folder)
            code, _ = main("--from", path, "--out", folder)
            self.assertEqual(code, 0)
            with open(os.path.join(folder, "2026-01-02-roofline.md"), encoding="utf-8") as file:
                text = file.read()
            self.assertIn("| o 576x576 | q4_1 | 20 (50) |", text)
            self.assertIn("Machine: a CPU. Commit abc, 2 threads. Load average 0.50 at the start; other programs took "
                          "4 % of the cores.", text)
            self.assertEqual(os.listdir(os.path.join(folder, "2026-01-02-roofline")), ["products.svg"])
            plot = xml.etree.ElementTree.parse(os.path.join(folder, "2026-01-02-roofline/products.svg"))
            words = [element.text for element in plot.iter() if element.tag.endswith("text")]
            self.assertIn("reading, 40 GB/s", words)
            self.assertIn("VPDPBUSD, 800 GOP/s", words)

    def test_runs_are_put_together(self):
        with tempfile.TemporaryDirectory() as folder:
            slow = saved(folder, "a.json", load=0.1)
            fast = saved(folder, "b.json", commit="def", load=3.0,
                         points=table.linear_points(product(seconds=5e-4) + "\n" + product(tokens=16)))
            both = roofline.load([slow, fast])
        self.assertEqual((both["commit"], both["load"]), ("abc, def", 3.0))
        self.assertIn("| o 576x576 | q4_1 | 40 (100) | 640 (80) |", table.markdown(both, [], ""))

    def test_what_is_no_run_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.json")
            for text in ("no JSON", "[]", '{"points": []}'):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                code, said = main("--from", path, "--out", folder)
                self.assertEqual(code, 1)
                self.assertIn(path, said)


if __name__ == "__main__":
    unittest.main()
