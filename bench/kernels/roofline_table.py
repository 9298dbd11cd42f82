"""What the benchmarks printed as points, and points as tables. A point is one case: seconds, bytes it must read,
operations it must do (a multiply-add is two), and what the machine reads and does in a second at most."""

import json
import re

READING = 4  # tokens of a product up to which the rate of reading is shown
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
CHUNKS = {128: 512}  # a chunk as long as the shortest context stands in the row of the long ones
TITLES = {"smollm2": "SmolLM2-135M", "llama-1b": "Llama-3.2-1B", "llama-8b": "Llama-3-8B"}
SHORT = {"smollm2-135m": "smollm2", "llama-3.2-1b": "llama-1b", "llama-3-8b": "llama-8b"}
INSTRUCTIONS = {"bf16": "dpbf16", "bfloat16": "dpbf16", "f32": "fma", "f16": "fma", "float32": "fma",
                "float16": "fma"}  # of the others: dpbusd
NAMES = {"dpbusd": "VPDPBUSD", "dpbf16": "VDPBF16PS", "fma": "VFMADD231PS"}


def instruction(format_name):
    return INSTRUCTIONS.get(format_name, "dpbusd")


def linear_points(text):
    """Of lines of JSON as bench_linear --json prints them."""
    points = []
    for line in text.splitlines():
        case = json.loads(line)
        size = f" {case['rows']}x{case['columns']}" if case["rows"] else ""
        points.append({"kind": "products", "model": SHORT[case["model"]], "row": case["shape"] + size,
                       "format": case["format"], "column": case["tokens"], "reads": case["tokens"] <= READING,
                       **{key: case[key] for key in ("seconds", "bytes", "ops", "read_per_s", "ops_per_s")}})
    return points


def attention_case(case):
    """(kind, model, dtype, sequences or tokens of the chunk, context) of a name."""
    kind, model, dtype, what = case["name"].split("/")[:4]
    first, context = map(int, re.fullmatch(r"(\d+)[x@](\d+)", what).groups())
    return kind, model, dtype, first, context


def attention_row(case):
    kind, _, _, tokens, _ = attention_case(case)
    return "decode" if kind == "decode" else f"prefill, {CHUNKS.get(tokens, tokens)} tokens"


def attention_points(text):
    """Of Google Benchmark's JSON of bench_attention, the ceilings among it. Of repetitions each counts on its own."""
    runs = [case for case in json.loads(text)["benchmarks"] if case.get("run_type") == "iteration"]
    ceilings, cases, points = {}, [], []
    for case in runs:
        if case["name"].startswith("ceiling/"):
            name = case["name"].split("/")[1]
            ceilings[name] = max(case.get("ops", case.get("bytes")), ceilings.get(name, 0))
        else:
            cases.append(case)
    cases.sort(key=lambda case: (attention_row(case), attention_case(case)[2]))  # they ran in random order
    for case in cases:
        kind, model, dtype, _, context = attention_case(case)
        seconds = case["real_time"] * UNITS[case["time_unit"]]
        points.append({"kind": "attention", "model": model, "row": attention_row(case), "format": dtype,
                       "column": context, "reads": kind == "decode", "seconds": seconds,
                       "bytes": case["bytes"] * seconds, "ops": case["ops"] * seconds,
                       "read_per_s": ceilings["read"], "ops_per_s": ceilings[instruction(dtype)]})
    return points


def fastest(points):
    """Of every case the one with the least time, in the order in which cases first come."""
    best = {}
    for point in points:
        key = tuple(point[name] for name in ("kind", "model", "row", "format", "column"))
        if key not in best or point["seconds"] < best[key]["seconds"]:
            best[key] = point
    return list(best.values())


def of_limit(point):
    """Per cent of the nearer limit: the time that reading or the operations need at least, over the time."""
    least = point["bytes"] / point["read_per_s"]
    if point["ops_per_s"] > 0:
        least = max(least, point["ops"] / point["ops_per_s"])
    return 100 * least / point["seconds"]


def cell(point):
    if point is None:
        return ""
    rate = point["bytes" if point["reads"] else "ops"] / point["seconds"] / 1e9
    return f"{rate:.0f} ({of_limit(point):.0f})"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def grid(points, first, columns):
    """A line for each (row, format), a column for each of `columns`, in the order in which they come."""
    cells = {(p["row"], p["format"], p["column"]): p for p in points}
    names = list(dict.fromkeys(p["column"] for p in points))
    lines = [row([first, "format", *(f"{columns}{name:,}" for name in sorted(names))]),
             row(["---"] * (len(names) + 2))]
    for name, fmt in dict.fromkeys((p["row"], p["format"]) for p in points):
        lines.append(row([name, fmt, *(cell(cells.get((name, fmt, column))) for column in sorted(names))]))
    return lines


def ceilings(points):
    """The best seen of reading and of each instruction, a second."""
    best = {"read": max(point["read_per_s"] for point in points)}
    for point in points:
        name = instruction(point["format"])
        if point["ops_per_s"] > 0:
            best[name] = max(best.get(name, 0), point["ops_per_s"])
    return best


def ceiling_line(points):
    best = ceilings(points)
    reads = [point["read_per_s"] / 1e9 for point in points]
    return (f"Ceilings seen: reading {min(reads):.0f} to {max(reads):.0f} GB/s"
            + "".join(f", {NAMES[name]} {best[name] / 1e9:.0f} GOP/s" for name in NAMES if name in best) + ".")


def markdown(results, plots, command):
    points = fastest(results["points"])
    lines = [f"# Roofline of the CPU kernels: {results['date']}{' (quick)' if results['quick'] else ''}", "",
             f"Machine: {results['machine']}. Commit {results['commit']}, {results['threads']} threads. Load average "
             f"{results['load']:.2f} at the start; other programs took {100 * results['others']:.0f} % of the cores.",
             ceiling_line(points), "",
             f"Products: GB/s of packed weights up to {READING} tokens, GOP/s above. Attention of one layer: GB/s of K "
             "and V where one token each of many sequences is decoded, GOP/s of a chunk that ends at the context (of "
             "512 tokens at a context of 128: a chunk of 128). In brackets the per cent of the nearer limit (reading "
             "all once, or all multiply-adds at the instruction's peak; measured in the same run, so above 100 is a "
             "moment in which the machine had more to give). The fastest of some samples; weights come from memory. "
             "\"layers\" is every matrix of the model in order, q4_1 with a q8_0 vocabulary.", ""]
    for model in dict.fromkeys(point["model"] for point in points):
        mine = [point for point in points if point["model"] == model]
        lines += [f"## {TITLES[model]}", ""]
        for kind, first, columns in (("products", "N x K", "M = "), ("attention", "attention", "")):
            some = [point for point in mine if point["kind"] == kind]
            if some:
                lines += [*grid(some, first, columns), ""]
    lines += [f"![{plot}]({plot})" for plot in plots]
    return "\n".join([*lines, "", "```sh", command, "```", ""])
