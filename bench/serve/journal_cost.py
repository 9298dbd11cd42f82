#!/usr/bin/env python3
"""What the journal costs: 64 requests at once to a server with it and to one without, in turn; the ratio of the medians.
Whoever is first in a pair changes with every round, so that a machine that grows slower favours neither."""

import argparse
import os
import statistics
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "peers"))
import engines  # noqa: E402  (found by the line above)
import loads  # noqa: E402


class QuireJournal(engines.Quire):
    def __init__(self, setup, ranks, *options):
        super().__init__(setup)
        self.ranks, self.options = ranks, options

    def command(self, variant):
        return super().command(variant) + list(self.options)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    cache = os.environ.get("QUIRE_CACHE", os.path.expanduser("~/.cache/quire"))
    parser.add_argument("--bin", default=os.path.join(HERE, "../../build/bin"), help="where the programs are")
    parser.add_argument("--model", default=os.path.join(cache, "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--load", default="batch64", help="of bench/peers/loads.py [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--sync", default="off", help="--journal-sync of the server that has one [%(default)s]")
    return parser.parse_args()


def main():
    options = parse()
    load = loads.BY_NAME[options.load]
    with tempfile.TemporaryDirectory() as folder:
        setup = engines.Setup(os.path.abspath(options.bin), options.model, sorted(os.sched_getaffinity(0)), folder, folder)
        journal = os.path.join(folder, "journal.sqlite")
        sides = {"with": ("--journal", journal, "--journal-sync", options.sync), "without": ("--journal", "none")}
        seen = {name: [] for name in sides}
        for round_ in range(options.rounds):
            for name in sorted(sides, reverse=round_ % 2 == 1):
                server = QuireJournal(setup, options.ranks, *sides[name])
                try:
                    server.start("default")
                    seen[name].append(server.run(load, round_)["figure"])
                finally:
                    server.stop()
                print(f"round {round_ + 1}, {name}: {seen[name][-1]:.0f} tok/s", flush=True)
    medians = {name: statistics.median(figures) for name, figures in seen.items()}
    pairs = statistics.median(a / b for a, b in zip(seen["with"], seen["without"]))
    print(f"{load.name}: with {medians['with']:.0f}, without {medians['without']:.0f} tok/s; ratio of medians "
          f"{medians['with'] / medians['without']:.3f}, median of the rounds' ratios {pairs:.3f}")


if __name__ == "__main__":
    main()
