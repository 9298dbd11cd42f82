"""The comparison's own code: what it plans, how it compares, and that its waits and processes end. No peer is
brought and no server started."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
sys.path.insert(0, os.path.join(ROOT, "bench/peers"))

import engines  # noqa: E402
import loads  # noqa: E402
import process  # noqa: E402
import run  # noqa: E402
import table  # noqa: E402


def turn(name, others=0.0, **figures):
    return {"engine": name, "ready_s": [1.0], "loads": {
        load: {"runs": [{"figure": value, "others": others} for value in values]} for load, values in figures.items()}}


def results(*turns, **more):
    names = list(dict.fromkeys(load for one in turns for load in one["loads"]))
    return {"date": "2026-01-02", "quick": False, "machine": "a CPU", "cores": [0, 1], "model": "m.gguf",
            "commit": "abc", "reasons": {}, "versions": {"quire": "1"}, "command": "run.sh", "turns": list(turns),
            "loads": {load: 1 for load in names}, **more}


def refusal(*arguments):
    """What the parser says of arguments that it must refuse."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            run.parse(list(arguments))
        except SystemExit:
            return said.getvalue()
    return "accepted"


class Plan(unittest.TestCase):
    def test_quire_runs_before_and_after_each_peer(self):
        turns, _, _ = run.plan(run.parse(["--only", "vllm,llama.cpp"]))
        self.assertEqual(turns, ["quire", "vllm", "quire", "llama.cpp", "quire"])
        self.assertEqual(run.plan(run.parse(["--only", "quire"]))[0], ["quire"])
        everything = run.plan(run.parse([]))[0]
        self.assertEqual(everything[::2], ["quire"] * len(engines.ENGINES))
        self.assertEqual(everything[1::2], [engine.name for engine in engines.ENGINES[1:]])

    def test_quick_means_fewer_loads_and_repeats(self):
        _, many, often = run.plan(run.parse([]))
        _, few, seldom = run.plan(run.parse(["--quick"]))
        self.assertEqual([load.name for load in many], list(loads.BY_NAME))
        self.assertLess(len(few), len(many))
        self.assertTrue(all(seldom[load.name] <= often[load.name] for load in few))
        _, chosen, _ = run.plan(run.parse(["--quick", "--loads", "intruder,single"]))
        self.assertEqual([load.name for load in chosen], ["single", "intruder"])

    def test_bad_arguments_are_named(self):
        self.assertIn("there is no peer `tgi`", refusal("--only", "vllm,tgi"))
        self.assertIn("there is no load `single1`", refusal("--loads", "single1"))
        self.assertIn("`0;1` is not a list of cores", refusal("--cores", "0;1"))
        self.assertIn("core 99999 is not ours", refusal("--cores", "99999"))
        self.assertIn("unrecognized arguments: --fast", refusal("--fast"))

    def test_dry_run_of_the_script_prints_the_plan_and_touches_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            cache = os.path.join(folder, "cache")
            done = subprocess.run([os.path.join(ROOT, "bench/peers/run.sh"), "--dry-run", "--only", "hf", "--cache",
                                   cache, "--out", folder, "--loads", "batch64,equal24"], capture_output=True,
                                  text=True, timeout=60, check=True)
            self.assertEqual(os.listdir(folder), [])
        self.assertIn("turns: quire hf quire\n", done.stdout)
        self.assertIn("load batch64 x2: --dataset-name lognormal --seed 1", done.stdout)
        self.assertIn("load equal24 x3:", done.stdout)
        self.assertEqual(done.stdout.count("not for hf"), 1)

    def test_a_missing_build_is_said(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(run.main(["--quire-bin", folder, "--out", folder]), 66)
            self.assertEqual(os.listdir(folder), [])
        self.assertIn("there is no quire in " + folder, said.getvalue())

    def test_no_two_repeats_share_prompts_and_all_share_lengths(self):
        seeds, lengths = set(), set()
        for load in loads.LOADS:
            for repeat in range(5):
                options = load.bench_options(repeat)
                seeds.add(options[options.index("--prompt-seed") + 1])
                lengths.add(options[options.index("--seed") + 1])
        self.assertEqual(len(seeds), 5 * len(loads.LOADS))
        self.assertEqual(lengths, {"1"})


class Table(unittest.TestCase):
    def test_a_peer_is_compared_with_the_turns_beside_it(self):
        found = results(turn("quire", batch64=[100, 120, 500]), turn("vllm", batch64=[40]),
                        turn("quire", batch64=[80]), turn("hf", batch64=[10]), turn("quire", batch64=[1000]))
        self.assertAlmostEqual(table.ratio(found, 1, "batch64"), (120 + 80) / 2 / 40)
        self.assertAlmostEqual(table.ratio(found, 3, "batch64"), (80 + 1000) / 2 / 10)
        text = table.markdown(found, "")
        self.assertIn("| **120** (80.0-1,000) | 40.0 (x2.50) | 10.0 (x54.00) |", text)

    def test_a_disturbed_turn_of_quire_gives_way_to_a_quiet_one(self):
        found = results(turn("quire", others=0.5, batch64=[30]), turn("vllm", batch64=[40]), turn("quire", batch64=[80]),
                        turn("hf", batch64=[10]), turn("quire", others=0.6, batch64=[50]))
        self.assertAlmostEqual(table.ratio(found, 1, "batch64"), 2)
        self.assertAlmostEqual(table.ratio(found, 3, "batch64"), 8)
        found["turns"][2]["loads"]["batch64"]["runs"][0]["others"] = 0.4
        self.assertAlmostEqual(table.ratio(found, 1, "batch64"), (30 + 80) / 2 / 40)

    def test_for_gaps_less_is_better(self):
        found = results(turn("quire", intruder=[50]), turn("vllm", intruder=[200]))
        self.assertAlmostEqual(table.ratio(found, 1, "intruder"), 4)

    def test_failures_are_in_the_table_with_their_reason(self):
        broken = turn("vllm")
        broken["loads"]["batch64"] = {"runs": [], "error": "it died: out of | memory"}
        found = results(turn("quire", batch64=[100]), broken, reasons={"llama.cpp": "could not be brought: no compiler"})
        text = table.markdown(found, "")
        self.assertIn("failed: it died: out of / memory", text)
        self.assertIn("llama.cpp, same file: could not be brought: no compiler", text)
        self.assertIsNone(table.ratio(found, 1, "batch64"))

    def test_figures_of_a_busy_machine_are_marked(self):
        found = results(turn("quire", others=0.02, single=[100]), turn("vllm", others=0.3, single=[50]))
        text = table.markdown(found, "")
        self.assertIn("| **100** | 50.0 (x2.00) ~ |", text)
        self.assertIn("16 % of the cores in the median measurement, 30 % in the worst", text)

    def test_the_seeds_comparison_is_quires_load_over_generate(self):
        found = results(turn("quire", batch64=[600]), turn("hf", one_by_one=[20], equal24=[100]),
                        turn("quire", batch64=[1000]))
        lines = "\n".join(table.seed_lines(found))
        self.assertIn("40.0 times transformers' generate one at a time", lines)
        self.assertIn("8.0 times transformers' generate in static batches of 24", lines)


class Processes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.log = os.path.join(self.folder.name, "log")

    def start(self, script, pipes=False):
        started = process.Started([sys.executable, "-c", script], self.log, pipes=pipes)
        self.addCleanup(started.stop, 1)
        return started

    def test_lines_go_both_ways(self):
        echo = self.start("import sys\nfor line in sys.stdin: print('got', line, end='', flush=True)", pipes=True)
        echo.write_line("one")
        self.assertEqual(echo.read_line(30), "got one\n")
        echo.stop()
        self.assertFalse(echo.alive())

    def test_silence_meets_a_deadline(self):
        silent = self.start("import time; time.sleep(600)", pipes=True)
        with self.assertRaisesRegex(process.Failed, "no answer within 0 s"):
            silent.read_line(0.2)
        silent.stop(1)
        self.assertFalse(silent.alive())

    def test_the_last_words_of_the_dead_are_told(self):
        dead = self.start("raise ValueError('no such model')", pipes=True)
        with self.assertRaisesRegex(process.Failed, "ValueError: no such model"):
            dead.read_line(30)

    def test_stop_ends_children_that_outlive_their_parent(self):
        parent = self.start("import subprocess, sys, time, signal\n"
                            "child = subprocess.Popen([sys.executable, '-c', 'import signal, time\\n"
                            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nprint(1, flush=True)\\ntime.sleep(600)'])\n"
                            "time.sleep(600)", pipes=True)
        self.assertEqual(parent.read_line(30), "1\n")
        pids = parent.pids()
        self.assertEqual(len(pids), 2)
        self.assertGreater(process.pss_bytes(pids), 1 << 20)
        parent.stop(2)
        deadline = time.monotonic() + 20
        while os.path.exists(f"/proc/{pids[1]}") and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(process.is_running(pids[1], pids[0]))

    def test_a_command_is_killed_at_its_deadline(self):
        with self.assertRaisesRegex(process.Failed, "did not end within"):
            process.run([sys.executable, "-c", "import time; time.sleep(600)"], 0.3)
        with self.assertRaisesRegex(process.Failed, r"failed \(3\).*what went wrong"):
            process.run([sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], 60)
        self.assertEqual(process.run([sys.executable, "-c", "print('fine')"], 60), "fine\n")

    def test_what_others_disturbed_is_measured_again_and_the_quietest_counts(self):
        class Fake:
            seen = []

            def pids(self):
                return []

            def run(self, load, repeat):
                self.seen.append(repeat)
                return {"figure": float(repeat)}

        class Watch:
            shares = iter([0.5, 0.3, 0.4, 0.05])

            def __init__(self, pids, cores):
                pass

            def others(self):
                return next(self.shares)

        real, run.Watch = run.Watch, Watch
        self.addCleanup(setattr, run, "Watch", real)
        with contextlib.redirect_stdout(io.StringIO()):
            noisy = run.quietest(Fake(), loads.BY_NAME["single"], 2, 2, None)
            quiet = run.quietest(Fake(), loads.BY_NAME["single"], 3, 2, None)
        self.assertEqual(noisy, {"figure": 1002.0, "others": 0.3})
        self.assertEqual(quiet, {"figure": 3.0, "others": 0.05})
        self.assertEqual(Fake.seen, [2, 1002, 2002, 3], "other prompts each time, and no try more than is needed")

    def test_a_load_that_fails_stops_its_engine_and_the_next_starts_it_again(self):
        class Fake(engines.Engine):
            name, title = "fake", "Fake"
            starts = stops = 0

            def start(self, variant):
                self.variant, self.starts = variant, self.starts + 1
                return 0.5

            def stop(self):
                self.variant, self.stops = None, self.stops + 1

            def run(self, load, repeat):
                if load.name == "batch24":
                    raise process.Failed("it died")
                return {"figure": 10.0 + repeat}

        fake = Fake(None)
        picked = [loads.BY_NAME[name] for name in ("single", "batch24", "batch64")]
        with contextlib.redirect_stdout(io.StringIO()):
            one = run.take_turn(fake, picked, {load.name: 2 for load in picked}, 0, None)
        self.assertEqual([r["figure"] for r in one["loads"]["single"]["runs"]], [10.0, 11.0])
        self.assertEqual(one["loads"]["batch24"], {"runs": [], "error": "it died"})
        self.assertEqual(len(one["loads"]["batch64"]["runs"]), 2)
        self.assertEqual(fake.starts, 2)
        self.assertEqual(fake.stops, 4, "before each start, after the failure, and at the end")


if __name__ == "__main__":
    unittest.main()
