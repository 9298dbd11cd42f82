#!/usr/bin/env python3
"""Mixed load for a long time while something is killed every 10 seconds: every answer is compared with
the undisturbed one, and every process's memory is watched. Exit code 0 where no request was lost or
altered and memory is flat; the page goes to bench/results/DATE-soak.md (or --out FILE).

    tests/chaos/soak.py --minutes 30 [--coordinator]     --coordinator: that one is killed as well"""

import argparse
import datetime
import os
import shutil
import signal
import sys
import tempfile
import time
import types

sys.dont_write_bytecode = True

import processes
import server as servers
import soak_page
from oracle import Oracle, long_prompts, mixed
from run import OPTIONS
from server import Server
from soak_load import Load
from soak_trouble import Trouble, Watch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(os.environ.get("QUIRE_BINARY_DIR", "build"), "bin"))
    parser.add_argument("--model", default=servers.MODEL)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=10, help="seconds between kills")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the load and of who is killed")
    parser.add_argument("--coordinator", action="store_true", help="kill the coordinator as well, and use keys")
    parser.add_argument("--out", help="where the page goes; - for nowhere")
    return parser.parse_args()


def main():
    args = arguments()
    if not os.path.exists(args.model):
        print(f"SKIPPED: no model at {args.model}; ./deploy/setup.sh fetches it")
        return 1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    processes.adopt_orphans()
    folder = tempfile.mkdtemp(prefix="quire-soak.")
    settings = types.SimpleNamespace(bin=os.path.abspath(args.bin), model=args.model, options=OPTIONS, env={})
    oracle = Oracle(settings, os.path.join(folder, "oracle"))
    server = None
    try:
        bodies = mixed(24, seed=args.seed, longest=400) + long_prompts(8)
        print(f"soak: asking an undisturbed server for {len(bodies)} answers", flush=True)
        right = oracle.answers(bodies)
        oracle.close()
        server = Server(settings, os.path.join(folder, "server"), ranks=args.ranks)
        load = Load(server, list(zip(bodies, right)), args.clients, args.coordinator, args.seed)
        watch, trouble = Watch(server), Trouble(server, args.coordinator, args.seed)
        began, end = time.monotonic(), time.monotonic() + 60 * args.minutes
        load.start()
        while time.monotonic() < end and not load.wrong and not server.ended():
            time.sleep(min(args.every, max(0.0, end - time.monotonic())))
            watch.look()
            if end - time.monotonic() > args.every:
                print(f"soak: {time.monotonic() - began:5.0f} s  {trouble.make():24}  {load.describe()}", flush=True)
        load.stop()
        problems = [*load.wrong, *finish(server, watch)]
        page = soak_page.page(args, time.monotonic() - began, load, trouble, watch, problems)
        print("\n" + page)
        if args.out != "-":
            path = args.out or os.path.join(ROOT, "bench", "results", f"{datetime.date.today()}-soak.md")
            with open(path, "w") as file:
                file.write(page)
        if problems:
            print("messages of the server:\n" + server.tail(60))
        return 1 if problems else 0
    finally:
        oracle.close()
        if server is not None and not server.ended():
            server.kill()
        processes.reap_adopted()
        shutil.rmtree(folder, ignore_errors=True)


def finish(server, watch):
    """What is wrong with the server's end: a list of sentences."""
    problems = watch.growth()
    try:
        server.settle()
        if (code := server.stop()) != 0:
            problems.append(f"the server ended with {code}")
        problems += server.left_behind()
    except AssertionError as error:
        problems.append(str(error))
    return problems


if __name__ == "__main__":
    sys.exit(main())
