#!/usr/bin/env python3
"""The CPU kernels beside the machine's own limits: runs bench_linear and bench_attention, and writes a table, plots
and every figure to bench/results (DATE-roofline.md and the folder DATE-roofline). With --from the table of runs that
were saved there; of a case measured twice the faster counts."""

import argparse
import datetime
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True  # nothing into the source tree
sys.path[1:1] = [os.path.join(ROOT, "bench/schedule"), os.path.join(ROOT, "bench/peers")]

import roofline_plot  # noqa: E402
import roofline_table as table  # noqa: E402
import run as peers  # noqa: E402  what the machine is, and what others take of it
from process import Failed  # noqa: E402

MODELS = {"smollm2": "smollm2-135m", "llama-1b": "llama-3.2-1b", "llama-8b": "llama-3-8b"}
RUN_S = 3600


def parse(arguments):
    parser = argparse.ArgumentParser(prog="roofline.py", description=__doc__)
    add = parser.add_argument
    add("--only", type=peers.names("model", list(MODELS)), metavar="MODEL,...", default=list(MODELS), help=f"of {', '.join(MODELS)} [all]")
    add("--quick", action="store_true", help="fewer tokens and contexts, fewer samples")
    add("--from", dest="saved", nargs="+", metavar="JSON", help="measure nothing: the table of these runs.json")
    add("--threads", type=count, default=len(os.sched_getaffinity(0)), help="[as many as cores we may use]")
    add("--bin", default=os.path.join(ROOT, "build/bin"), help="where the benchmarks are [build/bin]")
    add("--out", default=os.path.join(ROOT, "bench/results"), help="[bench/results]")
    add("--name", default="roofline", help="results are called DATE-NAME [roofline]")
    return parser.parse_args(arguments)


def count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number of threads")
    return int(text)


def commands(options):
    """(what reads its output, command) of every run."""
    contexts = "(128|1024|8192)" if options.quick else "[0-9]+"
    out = []
    for name in options.only:
        linear = ["bench_linear", "--json", f"--shapes={MODELS[name]}", f"--threads={options.threads}"]
        attention = ["bench_attention", "--benchmark_format=json",
                     f"--benchmark_filter=ceiling/|decode/{name}/.*x{contexts}/|"
                     f"prefill/{name}/.*/((16|512)@{contexts}|128@128)/",
                     "--benchmark_enable_random_interleaving=true"]
        if options.quick:
            linear += ["--tokens=1,16,512", "--samples=2"]
            attention += ["--benchmark_min_time=0.03", "--benchmark_repetitions=2"]
        else:
            attention += ["--benchmark_min_time=0.1", "--benchmark_repetitions=4"]
        out += [(table.linear_points, linear), (table.attention_points, [*attention, f"--threads={options.threads}"])]
    return out


def output_of(command, folder):
    program = os.path.join(folder, command[0])
    if not os.path.exists(program):
        raise Failed(f"there is no {command[0]} in {folder}; build it, or name another --bin")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=RUN_S, check=False)
    if done.returncode != 0:
        raise Failed(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[-300:]}")
    return done.stdout


def measure(options):
    results = {"date": datetime.date.today().isoformat(), "machine": peers.machine(), "commit": peers.commit(),
               "threads": options.threads, "quick": options.quick, "load": os.getloadavg()[0], "points": []}
    watch = peers.Watch([], os.cpu_count())
    for read, command in commands(options):
        print(" ".join(command), flush=True)
        results["points"] += read(output_of(command, options.bin))
    return {**results, "others": watch.others()}


def load(paths):
    """Saved runs as one; what they were made with is the first's, but for the commits."""
    runs = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                runs.append(json.load(file))
            points = runs[-1]["points"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"{path} is no runs.json that this program wrote: {error}") from error
        if not points:
            raise Failed(f"{path} has no figures")
    merged = {**runs[0], "points": [point for one in runs for point in one["points"]]}
    merged["commit"] = ", ".join(dict.fromkeys(one["commit"] for one in runs))
    for worst in ("load", "others"):
        merged[worst] = max(one[worst] for one in runs)
    return merged


def write(results, options, arguments):
    name = f"{results['date']}-{options.name}"
    folder = os.path.join(options.out, name)
    os.makedirs(folder, exist_ok=True)
    if not options.saved:
        with open(os.path.join(folder, "runs.json"), "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    plots = []
    for kind in ("products", "attention"):
        plot = os.path.join(name, f"{kind}.svg")
        if roofline_plot.draw(results, kind, os.path.join(options.out, plot)):
            plots.append(plot)
    command = " ".join(["bench/kernels/roofline.py", *arguments])
    with open(folder + ".md", "w", encoding="utf-8") as file:
        file.write(table.markdown(results, plots, command))
    return folder + ".md"


def main(arguments):
    options = parse(arguments)
    try:
        results = load(options.saved) if options.saved else measure(options)
    except (Failed, subprocess.TimeoutExpired) as failed:
        print(f"roofline.py: {failed}", file=sys.stderr)
        return 1
    print("written:", write(results, options, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
