"""The soak's result as a page for bench/results."""

import datetime
import os
import statistics

from soak_trouble import MEGABYTE, ROLES


def machine():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{models[0] if models else 'unknown CPU'}, {os.cpu_count()} cores"


def memory_rows(watch):
    for role in ROLES:
        own = [row for row in watch.rows if row[1] == role]
        if not own:
            continue
        halves = watch.halves(role, 2)
        span = "-" if halves is None else f"{halves[0] / MEGABYTE:.0f} → {halves[1] / MEGABYTE:.0f}"
        yield (f"| {role} | {span} | {max(row[2] for row in own) / MEGABYTE:.0f} | "
               f"{statistics.median(row[3] for row in own):.0f} | {max(row[3] for row in own)} |")


def page(args, seconds, load, trouble, watch, problems):
    counts = load.counts
    lines = [
        f"# Soak of {datetime.date.today()}", "",
        f"{seconds / 60:.1f} minutes of mixed load on `quire serve smollm2 --tensor-parallel-size {args.ranks}` "
        f"({machine()}, shared), {args.clients} clients, something killed every {args.every:.0f} s. Command:", "",
        f"    tests/chaos/soak.py --minutes {args.minutes:g} --clients {args.clients} --seed {args.seed}"
        + (" --coordinator" if args.coordinator else ""), "",
        f"**{'No request lost or altered, memory flat.' if not problems else 'It failed:'}**", "",
        *[f"- {problem}" for problem in problems], *([""] if problems else []),
        "| seen | |", "|---|---|",
        f"| answers, each equal to the undisturbed one | {counts['requests']} |",
        f"| of them whole / streamed / left and picked up again | {counts['whole']} / {counts['stream']} / {counts['leaving']} |",
        f"| tokens in them | {counts['tokens']} |",
        f"| slowest answer, s | {load.slowest:.1f} |",
        f"| connections that clients opened again | {counts['reconnections']} |",
        f"| requests turned away for the moment (503) and asked again | {counts['turned away']} |",
        *[f"| {kind} | {number} times |" for kind, number in sorted(trouble.made.items())], "",
        "Resident memory in MB (medians of the second and of the last quarter of the time), open descriptors:", "",
        "| process | memory | most | descriptors | most |", "|---|---|---|---|---|",
        *memory_rows(watch), "",
        f"Names in /dev/shm beside those of before, at most: {max(watch.shm, default=0)}.", ""]
    return "\n".join(lines)
