#!/usr/bin/env python3
"""Scores the reference texts (reference/smollm2: golden continuations and windows of real text) with peers, from the
exact bf16 checkpoint, and writes a file for each that `bench_accuracy --peer FILE` puts into its table. llama.cpp is
in that table with what reference/smollm2 has of it. Brings what is missing, as run.sh does."""

import argparse
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True  # nothing into the source tree

import engines  # noqa: E402
import process  # noqa: E402
from run import ROOT, add_peer_options, cache_of, names  # noqa: E402

SCORERS = {"hf": "hf_score.py", "vllm": "vllm_score.py"}
SCORE_S = 3600


def parse(arguments):
    data = os.environ.get("QUIRE_TEST_DATA") or os.path.join(ROOT, "../shared")
    parser = argparse.ArgumentParser(prog="accuracy.py", description=__doc__)
    add = parser.add_argument
    add("--only", type=names("peer", list(SCORERS)), default=list(SCORERS), metavar="NAME,...",
        help=f"of {', '.join(SCORERS)} [all]")
    add("--windows", type=count, default=40, metavar="N", help="of real text; bench_accuracy then takes no more [40]")
    add("--data", default=data, help="the folder that has reference/smollm2 [%(default)s]")
    add("--out", default=".", help="folder of the files [.]")
    add_peer_options(add)
    return parser.parse_args(arguments)


def count(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"`{text}` is not a number of windows")
    return int(text)


def score(name, setup, options):
    """The file with what peer `name` gives."""
    engine = engines.BY_NAME[name](setup)
    engine.bring()
    python = setup.cache.path("torch/bin/python")
    target = os.path.join(os.path.abspath(options.out), f"accuracy-{name}.json")
    process.run([python, "-B", os.path.join(HERE, SCORERS[name]), engine.folder, os.path.abspath(options.data),
                 str(options.windows), target], SCORE_S, setup.log(name), env=engine.env)
    return target


def main(arguments):
    options = parse(arguments)
    missing = [path for path in (options.model, os.path.join(options.data, "reference/smollm2/golden.dev.json"))
               if not os.path.exists(path)]
    if missing:
        print(f"accuracy.py: there is no {missing[0]}; --model names a GGUF file, --data the folder with the "
              "reference texts", file=sys.stderr)
        return 66
    os.makedirs(options.out, exist_ok=True)
    os.sched_setaffinity(0, options.cores)
    cache = cache_of(options)
    files, failures = [], 0
    with tempfile.TemporaryDirectory(prefix="quire-peers-") as folder:
        setup = engines.Setup("", os.path.abspath(options.model), options.cores, cache, folder)
        for name in options.only:
            try:
                files.append(score(name, setup, options))
                print(f"{name}: {files[-1]}", flush=True)
            except process.Failed as failed:
                failures += 1
                print(f"{name}: {failed}", flush=True)
    if files:
        print("build/bin/bench_accuracy", f"--windows {options.windows}", *(f"--peer {file}" for file in files))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
