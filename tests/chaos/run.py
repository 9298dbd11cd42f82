#!/usr/bin/env python3
"""Shows what happens when things break: real servers, real kills. Every row of faults.py is run and
printed at the end: fault, promise, seen. Exit code 0 where no row has failed.

    tests/chaos/run.py --bin build/bin [--fast] [--only F1,F4] [--part 1/2] [--list]"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
import traceback
import types

sys.dont_write_bytecode = True

import faults
import processes
import server as servers
from case import Case, Skipped
from oracle import Oracle

# Every server's: a small cache and few slots start fast; prefix caching stays on.
OPTIONS = ["--max-model-len", "2048", "--max-num-seqs", "32", "--progress", "none"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(os.environ.get("QUIRE_BINARY_DIR", "build"), "bin"),
                        help="folder of the programs (build/bin)")
    parser.add_argument("--model", default=servers.MODEL, help="the model that is served (the demo model)")
    parser.add_argument("--only", help="these faults, such as F1,F4")
    parser.add_argument("--fast", action="store_true", help="only rows that take seconds")
    parser.add_argument("--slow", action="store_true", help="only the others")
    parser.add_argument("--all", action="store_true", help="also rows that are known not to pass yet")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th row, from the K-th on")
    parser.add_argument("--list", action="store_true", help="print the rows, run nothing")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    return parser.parse_args()


def chosen(args):
    rows = [fault for fault in faults.TABLE
            if (not args.only or fault.number in args.only.split(","))
            and (fault.fast or not args.fast) and not (fault.fast and args.slow)]
    part, parts = map(int, args.part.split("/"))
    return rows[part - 1::parts]


def run_one(fault, settings, oracle, folder):
    """(seen, seconds)."""
    began = time.monotonic()
    case = Case(settings, oracle, tempfile.mkdtemp(prefix=fault.number + ".", dir=folder))
    try:
        if fault.show in faults.WAITS and not settings.all:
            raise Skipped(faults.WAITS[fault.show])
        fault.show(case)
        seen = "ok" + (f" ({'; '.join(case.notes)})" if case.notes else "")
    except Skipped as skipped:
        seen = f"skipped: {skipped}"
    except Exception as error:  # pylint: disable=broad-except  # a row, not the run, has failed
        seen = "FAILED: " + (str(error) or repr(error)).split("\n")[0]
        print(f"\n{fault.number} {fault.name}\n{traceback.format_exc()}", flush=True)
        for server in case.servers:
            print(f"--- messages of its server {server.folder}:\n{server.tail(60)}", flush=True)
    finally:
        case.close()
        processes.reap_adopted()
    return seen, time.monotonic() - began


def print_table(results):
    widths = (4, 44, 48, 60)
    def line(cells):
        columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells[:4], widths)]
        for i in range(max(map(len, columns))):
            texts = [(column[i] if i < len(column) else "").ljust(width) for column, width in zip(columns, widths)]
            print(" | ".join(texts) + (f" | {cells[4]:>6}" if i == 0 else ""))
    line(("", "fault", "promise", "seen", "s"))
    print("-" * (sum(widths) + 20))
    for fault, seen, seconds in results:
        line((fault.number, fault.name, fault.promise, seen, f"{seconds:.1f}"))
    words = [seen.split()[0].rstrip(":") for _, seen, _ in results]
    print(f"\n{words.count('ok')} ok, {words.count('FAILED')} failed, {words.count('skipped')} skipped, "
          f"{sum(s for _, _, s in results):.0f} s")
    return "FAILED" not in words


def main():
    args = arguments()
    if args.list:
        for fault in chosen(args):
            print(f"{fault.number:4} {'fast' if fault.fast else 'slow'}  {fault.name}: {fault.promise}")
        return 0
    if not os.path.exists(args.model):
        print(f"SKIPPED: no model at {args.model}; ./deploy/setup.sh fetches it")
        return 1 if os.environ.get("QUIRE_REQUIRE_TEST_DATA") == "1" else 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then too
    processes.adopt_orphans()
    folder = tempfile.mkdtemp(prefix="quire-chaos.")
    settings = types.SimpleNamespace(bin=os.path.abspath(args.bin), model=args.model, options=OPTIONS,
                                     env={}, all=args.all)
    oracle = Oracle(settings, os.path.join(folder, "oracle"))
    results = []
    try:
        for fault in chosen(args):
            print(f"{fault.number} {fault.name} ...", end=" ", flush=True)
            seen, seconds = run_one(fault, settings, oracle, folder)
            print(f"{seen} [{seconds:.1f} s]", flush=True)
            results.append((fault, seen, seconds))
    finally:
        oracle.close()
        processes.reap_adopted()
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
        print()
        passed = print_table(results)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
