"""Runs the same loads on Quire and its peers, one at a time and with the same cores, and writes a table, a plot
and every figure to bench/results. The order alternates, Quire / peer / Quire / ...: a peer is compared with the
two runs of Quire beside it, and the spread of Quire's runs shows how steady the machine was."""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import engines
import fetch
import loads
import process
import table

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LOCK_S = 3600


def parse(arguments):
    peers = [engine.name for engine in engines.ENGINES[1:]]
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", type=names("peer", [*peers, "quire"]), metavar="NAME,...",
        help=f"peers to run beside Quire (default all): {', '.join(peers)}; `quire` for none")
    add("--loads", type=names("load", list(loads.BY_NAME)), metavar="NAME,...",
        help="default all: " + ", ".join(loads.BY_NAME))
    add("--quick", action="store_true", help="few loads, few repeats")
    add("--dry-run", action="store_true", help="print the plan, and do nothing")
    add("--fetch-only", action="store_true", help="bring the peers, and measure nothing")
    add_peer_options(add)
    add("--quire-bin", default=os.path.join(ROOT, "build/bin"), help="[build/bin]")
    add("--out", default=os.path.join(ROOT, "bench/results"), help="[bench/results]")
    add("--name", default="peers", help="results are called DATE-NAME [peers]")
    add("--patience", type=int, default=1, metavar="N",
        help="measure again, so often, what others took more than a tenth of the cores from; the quietest counts [1]")
    add("--lock", metavar="FILE", help="hold this lock while measuring, for machines where others measure too")
    return parser.parse_args(arguments)


def add_peer_options(add):
    """What bringing and running peers needs to know."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    models = os.environ.get("QUIRE_CACHE") or os.path.expanduser("~/.cache/quire")
    add("--cache", default=os.path.join(caches, "quire/peers"), help="where peers are kept [%(default)s]")
    add("--python", help="Python 3.10 to 3.13 for PyTorch and vLLM [python3.12, else python3]")
    add("--model", default=os.path.join(models, "SmolLM2-135M-Instruct.Q4_1.gguf"), help="a GGUF file [the demo model]")
    add("--cores", type=core_list, default=sorted(os.sched_getaffinity(0)), metavar="N,...",
        help="for servers and clients together [all that we may use]")


def runs(python):
    """A version manager may have its name on the path, and no such version."""
    return shutil.which(python) and subprocess.run([python, "--version"], capture_output=True).returncode == 0


def cache_of(options):
    python = options.python or ("python3.12" if runs("python3.12") else "/usr/bin/python3")
    return fetch.Cache(options.cache, python, lambda text: print(text, flush=True))


def names(kind, known):
    def read(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {kind} `{name}`; there are {', '.join(known)}")
        return chosen
    return read


def core_list(text):
    try:
        cores = sorted({int(core) for core in text.split(",")})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is not a list of cores, such as 0,1") from error
    missing = set(cores) - os.sched_getaffinity(0)
    if missing:
        raise argparse.ArgumentTypeError(f"core {min(missing)} is not ours to use")
    return cores


def plan(options):
    """(turns, loads, repeats): names of engines in their order, and what each is given."""
    chosen = options.only or [engine.name for engine in engines.ENGINES[1:]]
    turns = ["quire"]
    for name in chosen:
        if name != "quire":
            turns += [name, "quire"]
    picked = [load for load in loads.LOADS
              if (load.name in options.loads if options.loads else load.in_quick or not options.quick)]
    return turns, picked, {load.name: load.quick_repeats if options.quick else load.repeats for load in picked}


def print_plan(options):
    turns, picked, repeats = plan(options)
    print("cores:", ",".join(map(str, options.cores)))
    print("turns:", " ".join(turns))
    for load in picked:
        line = " ".join(load.bench_options(0)) or "bench_intruder"
        print(f"load {load.name} x{repeats[load.name]}: "
              f"{'bench_intruder --streams 16 --prompt 5000' if load.figure == 'gap' else line}")
        for name in dict.fromkeys(turns):
            if not engines.BY_NAME[name].can(None, load):
                print(f"  not for {name}")


@contextlib.contextmanager
def alone(path):
    """Holds the lock in `path`, where one is given."""
    if not path:
        yield
        return
    with open(path, "a", encoding="ascii") as file:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise process.Failed(f"{path} was held by others for {LOCK_S} s") from None
                time.sleep(0.2)
        yield


class Watch:
    """How much of the cores other programs took while something was measured."""

    def __init__(self, pids, cores):
        self.pids, self.cores = pids, cores
        self.began, self.busy, self.ours = time.monotonic(), process.machine_busy_seconds(), self.used()

    def used(self):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        return process.cpu_seconds(self.pids) + children.ru_utime + children.ru_stime + own.ru_utime + own.ru_stime

    def others(self):
        busy = process.machine_busy_seconds() - self.busy
        wall = time.monotonic() - self.began
        return max(0.0, busy - (self.used() - self.ours)) / (wall * self.cores)


def quietest(engine, load, repeat, patience, lock):
    """One measurement; made again, with other prompts, up to `patience` times while others take the cores."""
    best = None
    for attempt in range(1 + patience):
        with alone(lock):
            watch = Watch(engine.pids(), os.cpu_count())
            one = engine.run(load, repeat + 1000 * attempt)
            one["others"] = watch.others()
        print(f"  {load.name}: {one['figure']:.1f}  (others took {100 * one['others']:.0f} %)", flush=True)
        if best is None or one["others"] < best["others"]:
            best = one
        if best["others"] <= table.BUSY:
            break
    return best


def measure(engine, load, count, patience, lock, turn):
    """All repeats of one load, into `turn`. An engine that fails one is stopped: the next load starts it again."""
    row = turn["loads"][load.name] = {"runs": []}
    try:
        if engine.variant != engine.variant_for(load):
            engine.stop()
            with alone(lock):
                ready = engine.start(engine.variant_for(load))
            turn["ready_s"].append(ready)
            turn.setdefault("pss_ready", process.pss_bytes(engine.pids()))
        for repeat in range(count):
            row["runs"].append(quietest(engine, load, repeat, patience, lock))
        turn["pss_after"] = max(turn.get("pss_after", 0), process.pss_bytes(engine.pids()))
    except process.Failed as failed:
        row["error"] = str(failed)
        print(f"  {load.name}: {failed}", flush=True)
        engine.stop()


def take_turn(engine, picked, repeats, patience, lock):
    turn = {"engine": engine.name, "at": datetime.datetime.now().isoformat(timespec="seconds"), "ready_s": [],
            "loads": {}}
    print(f"== {engine.title}", flush=True)
    try:
        for load in picked:
            if engine.can(load):
                measure(engine, load, repeats[load.name], patience, lock, turn)
        if hasattr(engine, "bare") and any(load.figure == "prompt" for load in picked):
            engine.stop()
            with alone(lock):
                turn["bare"] = engine.bare(0)
            print(f"  without HTTP: {turn['bare']}", flush=True)
    except process.Failed as failed:
        turn["bare_error"] = str(failed)
    finally:
        engine.stop()
    return turn


def bring_all(turns, setup):
    """Engines by name, and why some could not be brought."""
    brought, reasons = {}, {}
    for name in dict.fromkeys(turns):
        engine = engines.BY_NAME[name](setup)
        try:
            engine.bring()
            engine.version = engine.versions()
            brought[name] = engine
        except (process.Failed, OSError, IndexError) as failed:
            reasons[name] = f"could not be brought: {failed}"
            print(f"{name} {reasons[name]}", flush=True)
    return brought, reasons


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
             if flag in fields.get("flags", "").split()]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    return (f"{fields.get('model name', platform.processor())} (family {fields.get('cpu family', '?')}, model "
            f"{fields.get('model', '?')}), {os.cpu_count()} cores seen, {memory:.0f} GiB, {', '.join(flags)}")


def commit():
    dirty = " and changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    return (output_of("git", "rev-parse", "--short", "HEAD") or "unknown") + dirty


def describe(options):
    return {"date": datetime.date.today().isoformat(), "began": datetime.datetime.now().isoformat(timespec="seconds"),
            "machine": machine(), "cores": options.cores, "quick": options.quick,
            "commit": commit(), "model": os.path.basename(options.model)}


def write(results, options, plot_python):
    stem = os.path.join(options.out, f"{results['date']}-{options.name}")
    os.makedirs(stem, exist_ok=True)
    raw = os.path.join(stem, "runs.json")
    with open(raw, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    plot = ""
    if plot_python:
        try:
            process.run([plot_python, "-B", os.path.join(HERE, "plot.py"), raw, os.path.join(stem, "peers.png")], 300)
            plot = os.path.join(os.path.basename(stem), "peers.png")
        except process.Failed as failed:
            results["no_plot"] = str(failed)
    with open(stem + ".md", "w", encoding="utf-8") as file:
        file.write(table.markdown(results, plot))
    return stem + ".md"


def main(arguments):
    options = parse(arguments)
    if options.dry_run:
        print_plan(options)
        return 0
    for needed in ("quire", "quire-bench", "bench_intruder"):
        if not os.path.exists(os.path.join(options.quire_bin, needed)):
            print(f"run.sh: there is no {needed} in {options.quire_bin}; build it, or name another --quire-bin",
                  file=sys.stderr)
            return 66
    if not os.path.exists(options.model):
        print(f"run.sh: there is no model {options.model}; ./deploy/setup.sh fetches the demo model", file=sys.stderr)
        return 66
    cache = cache_of(options)
    turns, picked, repeats = plan(options)
    os.sched_setaffinity(0, options.cores)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is running is stopped on the way out
    with tempfile.TemporaryDirectory(prefix="quire-peers-") as folder:
        setup = engines.Setup(os.path.abspath(options.quire_bin), os.path.abspath(options.model), options.cores, cache,
                              folder)
        brought, reasons = bring_all(turns, setup)
        try:
            plot_python = fetch.plot_environment(cache)
        except process.Failed as failed:
            plot_python = None
            print(f"no plot: {failed}")
        if options.fetch_only:
            return 1 if reasons else 0
        results = {**describe(options), "command": "bench/peers/run.sh " + " ".join(arguments), "reasons": reasons,
                   "versions": {name: engine.version for name, engine in brought.items()}, "turns": [],
                   "loads": {load.name: repeats[load.name] for load in picked}}
        for name in turns:
            if name in brought:
                results["turns"].append(take_turn(brought[name], picked, repeats, options.patience, options.lock))
                path = write(results, options, plot_python)  # after each: an end in between leaves what there is
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
