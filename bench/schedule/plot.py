#!/usr/bin/env python3
"""Turns reports of bench_replay into tables (Markdown) and plots (SVG, written here: nothing to install).

    plot.py OUT_FOLDER REPORT.json...

Reports are grouped by trace; within a trace a line of a plot is one label.
"""

import collections
import json
import math
import os
import sys

COLOURS = ["#1b6ca8", "#c8553d", "#3a7d44", "#8e6c8a", "#c99a2e", "#444444", "#5fa8a0"]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 70, 190, 44, 56


def nice_ticks(low, high, count=6):
    if high <= low:
        high = low + 1
    step = 10 ** math.floor(math.log10((high - low) / count))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= count:
            step *= factor
            break
    first = math.ceil(low / step) * step
    return [first + i * step for i in range(int((high - first) / step + 1e-9) + 1)]


def log_ticks(low, high):
    ticks = [m * 10.0**e for e in range(-3, 9) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    return ticks if len(ticks) <= 9 else [t for t in ticks if str(t)[0] == "1" or "e" in str(t)]


def text(x, y, words, anchor="middle", size=12, turn=""):
    words = str(words).replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{turn}>{words}</text>'


class Axis:
    def __init__(self, values, begin, end, log):
        self.log = log and min(values) > 0
        low, high = min(values), max(values)
        if self.log:
            low, high = low / 1.1, high * 1.1
            self.ticks = log_ticks(low, high) or [low, high]
        else:
            low, high = min(0, low), high * 1.05 or 1
            self.ticks = nice_ticks(low, high)
        self.low, self.high, self.begin, self.end = low, high, begin, end

    def __call__(self, value):
        scale = math.log if self.log else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.begin + share * (self.end - self.begin)


def frame(title, x_name, y_name, x_axis, y_axis):
    """What a plot begins with: its words, and a grid at the ticks of both axes."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text((LEFT + WIDTH - RIGHT) / 2, 22, title, size=14),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_name),
        text(18, HEIGHT / 2, y_name, turn=f' transform="rotate(-90 18 {HEIGHT / 2})"'),
    ]
    for tick in x_axis.ticks:
        x = x_axis(tick)
        out.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        out.append(text(x, HEIGHT - BOTTOM + 18, f"{tick:g}", size=11))
    for tick in y_axis.ticks:
        y = y_axis(tick)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(text(LEFT - 6, y + 4, f"{tick:g}", "end", 11))
    return out


def plot(path, title, x_name, y_name, lines, log_x=False, log_y=False, level=None):
    """lines: {label: [(x, y)]}; level: (y, words), a dashed line across."""
    points = [p for line in lines.values() for p in line]
    if not points:
        return False
    ys = [y for _, y in points] + ([level[0]] if level else [])
    x_axis = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT, log_x)
    y_axis = Axis(ys, HEIGHT - BOTTOM, TOP, log_y)
    out = frame(title, x_name, y_name, x_axis, y_axis)
    if level:
        y = y_axis(level[0])
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#222" stroke-dasharray="5 4"/>')
        out.append(text(LEFT + 4, y - 5, level[1], "start", 11))
    for i, (label, line) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        path_d = "M" + "L".join(f"{x_axis(x):.1f} {y_axis(y):.1f}" for x, y in sorted(line))
        out.append(f'<path d="{path_d}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
        y = TOP + 14 + 18 * i
        out.append(f'<path d="M{WIDTH - RIGHT + 12} {y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        out.append(text(WIDTH - RIGHT + 36, y, label, "start", 11))
    out.append("</svg>\n")
    with open(path, "w") as file:
        file.write("\n".join(out))
    return True


def ms(value):
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def offered(report):
    """Requests a second that come in."""
    options, seen = report["options"], report["seen"]
    return options["rate"] or seen.get("offered_per_s", 0)


def row_of(report):
    seen = report["seen"]
    memory = seen.get("memory") or {}
    def of(name, p):
        return ms((seen[name] or {}).get(p))
    return [
        report["options"]["label"],
        f'{offered(report):.2f}',
        f'{seen["requests_per_s"]:.2f}',
        f'{seen["goodput_per_s"]:.2f} ({100 * seen["good_share"]:.0f} %)',
        f'{seen["output_tokens_per_s"]:,.0f}',
        f'{seen["total_tokens_per_s"]:,.0f}',
        f'{of("ttft_ms", "p50")} / {of("ttft_ms", "p90")} / {of("ttft_ms", "p99")}',
        f'{of("tpot_ms", "p50")} / {of("tpot_ms", "p90")} / {of("tpot_ms", "p99")}',
        f'{of("itl_ms", "p50")} / {of("itl_ms", "p99")}',
        f'{of("e2e_ms", "p50")} / {of("e2e_ms", "p99")}',
        f'{seen["prefix_hit_ratio"]:.3f}' if seen["ideal_hit_ratio"] else "",
        str(seen["preemptions"]),
        f'{100 * memory["waste"]:.2f} ({memory["waste_over_floor"]:.2f}x)' if memory else "",
        str(seen["max_running"]),
        f'{seen["wall"]["plan_us"]["mean"] + seen["wall"]["apply_us"]["mean"]:.0f} / '
        f'{seen["wall"]["plan_us"]["p99"] + seen["wall"]["apply_us"]["p99"]:.0f}',
    ]


HEAD = ["", "offered req/s", "req/s", "goodput req/s", "out tok/s", "total tok/s", "TTFT ms p50 / p90 / p99",
        "TPOT ms p50 / p90 / p99", "ITL ms p50 / p99", "E2E ms p50 / p99", "hit ratio", "preempted", "waste % (of floor)",
        "most running", "plan + apply us mean / p99"]


def sorted_reports(reports):
    """By label, in the order in which labels come; then by offered rate and cache size."""
    labels = list(dict.fromkeys(r["options"]["label"] for r in reports))
    def key(report):
        options = report["options"]
        return labels.index(options["label"]), offered(report), options["blocks"] + options["offload_blocks"]
    return sorted(reports, key=key)


def cache_table(reports):
    out = ["### Prompt tokens found in the cache, by its size (mooncake)\n",
           "| | device blocks | host blocks | tokens, millions | hit ratio | LRU of the same size | TTFT ms p50 | swapped blocks |",
           "|---|---|---|---|---|---|---|---|"]
    for report in reports:
        options, seen = report["options"], report["seen"]
        blocks = options["blocks"] + options["offload_blocks"]
        out.append(f'| {options["label"]} | {options["blocks"]:,} | {options["offload_blocks"]:,} | {blocks * 16 / 1e6:.2f} | '
                   f'{seen["prefix_hit_ratio"]:.4f} | {seen["lru_hit_ratio"]:.4f} | {ms(seen["ttft_ms"]["p50"])} | '
                   f'{seen["swapped_blocks"]:,.0f} |')
    return out + [""]


def tables(reports):
    by_trace = collections.OrderedDict()
    cache = [r for r in reports if "cache:" in r["options"]["label"]]
    for report in [r for r in reports if r not in cache]:
        by_trace.setdefault(report["options"]["trace"], []).append(report)
    out = []
    for trace, rows in by_trace.items():
        seen = rows[0]["options"]
        out.append(f'### {trace}: {seen["requests"]:,} requests, {seen["mean_prompt"]:,.0f} tokens in and '
                   f'{seen["mean_output"]:,.0f} out on average\n')
        out.append("| " + " | ".join(HEAD) + " |")
        out.append("|" + "---|" * len(HEAD))
        out += ["| " + " | ".join(row_of(r)) + " |" for r in rows]
        out.append("")
    return "\n".join(out + (cache_table(cache) if cache else []))


def lines_of(reports, value):
    lines = collections.OrderedDict()
    for report in reports:
        y = value(report)
        if y is not None:
            lines.setdefault(report["options"]["label"], []).append((offered(report), y))
    return {label: line for label, line in lines.items() if len(line) > 1}


def draw(reports, folder):
    sweeps = [r for r in reports if "cache:" not in r["options"]["label"]]
    for trace in dict.fromkeys(r["options"]["trace"] for r in sweeps):
        rows = [r for r in sweeps if r["options"]["trace"] == trace]
        name = os.path.join(folder, trace.replace(":", "-"))
        plot(f"{name}-goodput.svg", f"{trace}: requests within 500 ms TTFT and 30 ms TPOT", "offered requests/s",
             "goodput, requests/s", lines_of(rows, lambda r: r["seen"]["goodput_per_s"]))
        for p in ("p50", "p99"):
            plot(f"{name}-ttft-{p}.svg", f"{trace}: time to first token, {p}", "offered requests/s", "TTFT, ms",
                 lines_of(rows, lambda r, p=p: r["seen"]["ttft_ms"][p]), log_y=True, level=(500, "500 ms"))
        plot(f"{name}-itl-p99.svg", f"{trace}: gap between tokens, p99", "offered requests/s", "ITL, ms",
             lines_of(rows, lambda r: r["seen"]["itl_ms"]["p99"]), log_y=True)
    cache = [r for r in reports if "cache:" in r["options"]["label"]]
    if not cache:
        return
    lines = collections.OrderedDict()
    for report in cache:
        options, seen = report["options"], report["seen"]
        millions = (options["blocks"] + options["offload_blocks"]) * 16 / 1e6
        lines.setdefault(options["label"], []).append((millions, seen["prefix_hit_ratio"]))
        lines.setdefault("LRU, one request at a time", []).append((millions, seen["lru_hit_ratio"]))
    ideal = cache[0]["seen"]["ideal_hit_ratio"]
    plot(os.path.join(folder, "hit-ratio.svg"), f'{cache[0]["options"]["trace"]}: prompt tokens found in the cache',
         "cache, millions of tokens", "hit ratio", lines, log_x=True, level=(ideal, f"without end: {ideal:.3f}"))


def main():
    folder, paths = sys.argv[1], sys.argv[2:]
    reports = []
    for path in paths:
        with open(path) as file:
            reports.append(json.load(file))
    reports = sorted_reports(reports)
    os.makedirs(folder, exist_ok=True)
    draw(reports, folder)
    with open(os.path.join(folder, "tables.md"), "w") as file:
        file.write(tables(reports))


if __name__ == "__main__":
    main()
