"""run.sh PART...: build+ops, sanitizer, attention+linear, serve8b, seed7b, seed13b, ranks, or all.

Results go to $OUT where that is set (a lent machine gives back what lies there), else to
bench/results; what either has of this device and day is taken as done. --again runs parts that are
done, --date continues another day's file. The exit code is 1 when a step failed or was not reached."""

import argparse
import json
import os
import resource
import sys
import tarfile
import time

import kernel_parts
import machine
import ranks
import serving
from results import Results
from steps import Part

PARTS = {
    "build+ops": kernel_parts.build_and_ops,
    "sanitizer": kernel_parts.sanitizer,
    "attention+linear": kernel_parts.attention_and_linear,
    "serve8b": serving.serve8b,
    "seed7b": lambda part, gpu: serving.run_seed(part, "llama-7b", 24, gpu),
    "seed13b": lambda part, gpu: serving.run_seed(part, "llama-13b", 40, gpu),
    "ranks": ranks.run,
}


def unpack():
    """The bundle's facts, once its archive is unpacked beside it; None without one."""
    folder = machine.bundle()
    facts_path, archive = os.path.join(folder, "facts.json"), os.path.join(folder, "bundle.tar.xz")
    if not os.path.exists(facts_path):
        return None
    with open(facts_path, encoding="utf-8") as file:
        facts = json.load(file)
    stamp = os.path.join(folder, "unpacked")
    if not os.path.exists(stamp) or open(stamp, encoding="utf-8").read() != facts["sum"]:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(folder)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(facts["sum"])
    return facts


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d", time.gmtime()))
    options = parser.parse_args(arguments)
    gpu = machine.query_gpu()
    if gpu is None:
        print("run.sh: no GPU here (nvidia-smi lists none); nothing was run", file=sys.stderr)
        return 77
    facts = unpack()
    if facts is None:
        print(f"run.sh: no bundle in {machine.bundle()}; tests/gpu/bundle.sh makes one where the project builds",
              file=sys.stderr)
        return 66
    # A thousand requests at once are a thousand connections of the server and of the client.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept = os.path.join(machine.ROOT, "bench/results")
    out = os.environ.get("OUT") or kept
    results = Results([out, kept], gpu["name"], options.date, machine.describe(gpu))
    build = f"{facts['commit']}-{facts['sum']}"
    failed = []
    for name in PARTS if "all" in options.parts else options.parts:
        log = os.path.join(out, "gpu-run.log") if os.environ.get("OUT") else None
        part = Part(name, results, build, options.again, log=log)
        try:
            PARTS[name](part, gpu["name"])
        finally:
            part.end_children()
            part.end_kept()
        failed += [f"{name}: {step}" for step in part.failed]
    print(f"results: {results.path}")
    print("\n".join(f"FAILED {each}" for each in failed) or "all steps passed or were skipped with a reason")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
