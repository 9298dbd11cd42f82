"""OPERATIONS.md against the programs: every exit code and metric is on it, nothing else is, and what it says of
/dev/shm and of the time to stop is so."""

import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "..", "..", room) for room in ("e2e", "chaos")]

try:
    from facts import Facts, read
    from objects import find, render
    from rules import GATHER_BYTES
except ImportError as missing:
    print(f"SKIPPED: {missing}; ./deploy/setup.sh --tests installs it")
    sys.exit(77)
import processes  # noqa: E402
from quire_server import MODEL, Server  # noqa: E402

PAGE = read("deploy", "OPERATIONS.md")
HIDDEN, ROWS = 576, 512  # of the demo model; --max-num-batched-tokens


def section(name):
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)[1]


def codes_in_the_sources():
    worker = re.findall(r"^  kExit\w+ = (\d+),", read("worker", "session", "exit_code.h"), re.M)
    constants = re.search(r"constexpr int (kUsage[^;]*);", read("coordinator", "main.cpp"))[1]
    explained = re.findall(r"case (\d+):", read("deploy", "quire", "launch.cpp"))
    supervisor = re.findall(r"return (\d+);", read("deploy", "quire", "supervisor_main.cpp"))
    group = re.findall(r"fail (\d+) ", read("deploy", "container", "quire-group"))
    found = [worker, re.findall(r"= (\d+)", constants), explained, supervisor, group]
    assert all(found), found
    return {int(code) for codes in found for code in codes}


def families(samples):
    """Names as people know them: histograms without their endings."""
    return {re.sub(r"_(bucket|sum|count)$", "", s) for s in samples}


class Operations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.facts = Facts()

    def test_exit_codes(self):
        on_page = {int(c) for c in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.M)}
        self.assertEqual(on_page, codes_in_the_sources())
        self.assertIn("| 128 + n |", section("Exit codes"))

    def test_permanent_codes_are_those_that_nobody_retries(self):
        permanent = {int(c) for c in re.findall(r"^\| (\d+) \| [^|]*\(permanent\)", section("Exit codes"), re.M)}
        supervisor = re.search(r"bool is_permanent.*?\}", read("deploy", "quire", "launch.cpp"), re.S)[0]
        group = re.search(r"^ +([\d|]+)\) fail", read("deploy", "container", "quire-group"), re.M)[1]
        self.assertEqual(permanent, {int(c) for c in re.findall(r"== (\d+)", supervisor)})
        self.assertEqual(permanent, {int(c) for c in group.split("|")})

    def test_metrics(self):
        rows = [line.split("|")[1] for line in section("Metrics").splitlines() if line.startswith("| `")]
        on_page = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
        self.assertEqual(sorted(on_page), sorted(set(on_page)))
        self.assertEqual(set(on_page), families(self.facts.metrics))

    def test_causes_and_reasons(self):
        table = read("common", "metrics_table.cpp")
        words = [w for array in ("kEndCauses", "kRejectionReasons")
                 for w in re.findall(r'"(\w+)"', re.search(rf"{array}\[\] = \{{(.*?)\}}", table, re.S)[1])]
        self.assertEqual(len(words), 9)
        self.assertEqual([w for w in words if f"`{w}`" not in section("Incidents")], [])

    def test_alerts(self):
        rules = find(render("lws", ["monitoring"]), "PrometheusRule", "quire")["spec"]["groups"][0]["rules"]
        alerts = {r["alert"] for r in rules if "alert" in r}
        self.assertEqual(set(re.findall(r"`(Quire[A-Z]\w+)`", section("Incidents"))), alerts)

    def test_time_to_stop(self):
        self.assertIn(f"`--drain-timeout` + {self.facts.stop_s} s before it kills", PAGE)

    def test_options_on_the_page(self):
        known = set().union(*self.facts.options.values())
        asked = set(re.findall(r"`(--[a-z0-9-]+)", PAGE))
        self.assertGreater(len(asked), 7)
        self.assertEqual(asked - known, set())

    def test_shared_memory(self):
        """What ranks have mapped is within the page's formula, and not far from it."""
        self.assertIn("`2 × N × max(P × R × hidden × 4, 16 MiB)`", PAGE)
        if not os.path.exists(MODEL):
            self.skipTest("no demo model; ./deploy/setup.sh fetches it")
        for ranks in (2, 3):
            server = Server("--max-num-batched-tokens", str(ROWS), ranks=ranks)
            try:
                mapped = mapped_by_a_rank(server.process.pid)
            finally:
                server.stop()
            formula = 2 * ranks * max(6 * ROWS * HIDDEN * 4, GATHER_BYTES)
            self.assertLessEqual(mapped, formula + 65536)  # and control words
            self.assertGreater(mapped, formula / 8)


def mapped_by_a_rank(supervisor):
    """Bytes of Quire's segment in one of the server's workers."""
    for pid in processes.named(supervisor, "quire-worker"):
        with open(f"/proc/{pid}/maps") as file:
            lines = [line for line in file if "/dev/shm/quire." in line]
        if lines:
            return sum(int(end, 16) - int(begin, 16) for begin, _, end in
                       (line.split()[0].partition("-") for line in lines))
    return 0


if __name__ == "__main__":
    unittest.main(verbosity=2)
