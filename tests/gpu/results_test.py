import json
import os
import tempfile
import unittest

import results
from steps import Part, StepFailed, StepSkipped


def step(status="passed", at="2026-11-24T10:00:00Z", build="abc", rows=()):
    return {"status": status, "build": build, "at": at, "seconds": 1.0, "rows": list(rows), "note": ""}


class ResultsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = os.path.join(self.folder.name, "out")
        self.kept = os.path.join(self.folder.name, "kept")

    def open(self, folders=None):
        return results.Results(folders or [self.out], "NVIDIA H100 80GB HBM3", "2026-11-24", {"driver": "580"})

    def test_a_file_is_named_after_device_and_day(self):
        self.assertEqual(results.file_name("NVIDIA H100 80GB HBM3", "2026-11-24"),
                         "gpu-nvidia-h100-80gb-hbm3-2026-11-24.json")

    def test_what_is_recorded_is_read_again(self):
        self.open().record("ranks", "two", step(rows=[{"bench": "x", "us": 1.5}]))
        again = self.open()
        self.assertTrue(again.is_done("ranks", "two", "abc"))
        self.assertFalse(again.is_done("ranks", "two", "other build"))
        self.assertFalse(again.is_done("ranks", "three", "abc"))
        self.assertEqual(again.data["machine"]["driver"], "580")

    def test_parts_of_several_runs_come_together(self):
        self.open([self.kept]).record("ranks", "two", step())
        run = self.open([self.out, self.kept])
        run.record("serve8b", "load", step())
        with open(run.path, encoding="utf-8") as file:
            self.assertEqual(set(json.load(file)["parts"]), {"ranks", "serve8b"})

    def test_the_newer_of_two_runs_of_a_step_counts(self):
        old, new = self.open([self.out]), self.open([self.kept])
        old.record("ranks", "two", step("failed", "2026-11-24T10:00:00Z"))
        new.record("ranks", "two", step("passed", "2026-11-24T11:00:00Z"))
        for order in ([old, new], [new, old]):
            data = json.loads(json.dumps(order[0].data))
            merged = results.merge(data, json.loads(json.dumps(order[1].data)))
            self.assertEqual(merged["parts"]["ranks"]["steps"]["two"]["status"], "passed")

    def test_a_step_that_was_not_reached_hides_nothing(self):
        data = self.open()
        data.record("ranks", "two", step("passed", "2026-11-24T10:00:00Z"))
        data.record("ranks", "two", step("late", "2026-11-24T12:00:00Z"))
        self.assertEqual(data.step("ranks", "two")["status"], "passed")
        late = {"device": data.data["device"], "parts": {"ranks": {"steps": {"two": step("late", "2027")}}}}
        results.merge(data.data, late)
        self.assertEqual(data.step("ranks", "two")["status"], "passed")

    def test_devices_are_not_mixed(self):
        with self.assertRaises(ValueError):
            results.merge({"device": "H100", "parts": {}}, {"device": "H200", "parts": {}})

    def test_merge_as_a_command(self):
        for folder, name in ((self.out, "two"), (self.kept, "three")):
            self.open([folder]).record("ranks", name, step())
        into = os.path.join(self.folder.name, "all.json")
        name = results.file_name("NVIDIA H100 80GB HBM3", "2026-11-24")
        self.assertEqual(results.main(["merge", into, os.path.join(self.out, name),
                                       os.path.join(self.kept, name)]), 0)
        self.assertEqual(set(results.read(into)["parts"]["ranks"]["steps"]), {"two", "three"})

    def test_markdown_has_every_row_and_what_was_missed(self):
        data = self.open()
        data.record("attention+linear", "decode", step(rows=[
            {"bench": "cuda_attention_decode", "batch": 64, "hbm_share": 0.71234, "goal": ">= 65 %", "met": True},
            {"bench": "cuda_attention_decode", "batch": 1, "us": 17.0, "goal": "<= 15 us", "met": False}]))
        with open(data.path[:-4] + "md", encoding="utf-8") as file:
            text = file.read()
        self.assertIn("| 64 | 0.7123 | >= 65 % | yes |", text)
        self.assertIn("**no**", text)
        self.assertIn("17", text)


class PartTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.runs = []

    def part(self, **options):
        found = results.Results([self.folder], "a GPU", "2026-11-24")
        part = Part("ranks", found, options.pop("build", "abc"), **options)
        part.say = lambda text: None
        return part

    def work(self, part):
        self.runs.append(1)
        return [{"bench": "x", "us": 2.0}]

    def test_a_step_that_passed_is_skipped_unless_again(self):
        self.part().step("one", self.work)
        rows = self.part().step("one", self.work)
        self.assertEqual((len(self.runs), rows), (1, [{"bench": "x", "us": 2.0}]))
        self.part(again=True).step("one", self.work)
        self.part(build="newer").step("one", self.work)
        self.assertEqual(len(self.runs), 3)

    def test_a_step_that_failed_is_run_again(self):
        def fails(part):
            self.runs.append(1)
            raise StepFailed("it did not work")
        for _ in range(2):
            part = self.part()
            self.assertIsNone(part.step("one", fails))
            self.assertEqual(part.failed, ["one"])
        self.assertEqual(len(self.runs), 2)
        self.assertIn("did not work", part.results.step("ranks", "one")["note"])

    def test_a_mistake_in_a_step_is_a_failure_and_the_next_step_runs(self):
        part = self.part()
        part.step("one", lambda _: 1 / 0)
        part.step("two", self.work)
        self.assertEqual(part.failed, ["one"])
        self.assertIn("ZeroDivisionError", part.results.step("ranks", "one")["note"])
        self.assertEqual(part.results.step("ranks", "two")["status"], "passed")

    def test_a_step_without_time_is_late_and_runs_next_time(self):
        part = self.part(seconds=5)
        self.assertIsNone(part.step("one", self.work, needs=10))
        self.assertEqual((self.runs, part.failed), ([], ["one"]))
        self.part().step("one", self.work)
        self.assertEqual(len(self.runs), 1)

    def test_a_program_that_takes_too_long_is_killed_with_its_children(self):
        part = self.part(seconds=60)
        part.step("one", lambda p: p.run(["sh", "-c", "echo begun; sleep 300 & wait"], seconds=1))
        note = part.results.step("ranks", "one")["note"]
        self.assertIn("not done in 1 s", note)
        self.assertIn("begun", note)

    def test_exit_codes(self):
        part = self.part()
        part.step("skips", lambda p: p.run(["sh", "-c", "echo no GPU here; exit 77"]) and [])
        self.assertEqual(part.results.step("ranks", "skips")["status"], "skipped")
        self.assertIn("no GPU here", part.results.step("ranks", "skips")["note"])
        part.step("fails", lambda p: p.run(["sh", "-c", "echo oops; exit 3"]) and [])
        self.assertIn("exit code 3\noops", part.results.step("ranks", "fails")["note"])
        self.assertEqual(part.failed, ["fails"])

    def test_what_a_step_left_running_is_ended(self):
        part = self.part()
        part.step("one", lambda p: p.start(["sleep", "300"]) and self.runs.append(p.children[0]))
        self.assertIsNotNone(self.runs[0].poll())
        part.step("server", lambda p: [p.start(["sleep", "300"]), self.runs.append(p.children[0]), p.keep()] and [])
        self.assertIsNone(self.runs[1].poll())
        part.end_kept()
        self.assertIsNotNone(self.runs[1].poll())
        part.step("skip", lambda p: (_ for _ in ()).throw(StepSkipped("nothing to do")))
        self.assertEqual(part.failed, [])


if __name__ == "__main__":
    unittest.main()
