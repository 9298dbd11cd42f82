"""The results as markdown: arithmetic on what run.py collected, nothing else."""

import statistics

import engines
import loads

BUSY = 0.1  # share of the cores that others took: beyond it a figure is marked


def figures(turn, load):
    return [run["figure"] for run in turn["loads"].get(load, {}).get("runs", [])]


def value(turn, load, key="figure"):
    """The median of a turn's repeats, or None."""
    found = [run[key] for run in turn["loads"].get(load, {}).get("runs", []) if key in run]
    return statistics.median(found) if found else None


def neighbours(results, index):
    """The turns of Quire just before and after turn `index`."""
    turns = results["turns"]
    around = [turns[i] for i in (index - 1, index + 1) if 0 <= i < len(turns)]
    return [turn for turn in around if turn["engine"] == "quire"]


def beside(results, index, load):
    """Quire's figure beside turn `index`: the mean of the turns around it, without those that others disturbed
    if there is one that they did not. None where there is no figure."""
    turns = [turn for turn in neighbours(results, index) if value(turn, load) is not None]
    quiet = [turn for turn in turns if others(turn, load) <= BUSY]
    return statistics.mean(value(turn, load) for turn in quiet or turns) if turns else None


def ratio(results, index, load):
    """How many times better Quire is than turn `index`; None where a figure is missing."""
    theirs, ours = value(results["turns"][index], load), beside(results, index, load)
    if not theirs or not ours:
        return None
    return theirs / ours if loads.BY_NAME[load].figure == "gap" else ours / theirs


def others(turn, load):
    return max([run.get("others", 0) for run in turn["loads"].get(load, {}).get("runs", [])], default=0)


def number(x):
    if x is None:
        return ""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}"


def quire_cell(turns, load):
    values = [v for v in (value(turn, load) for turn in turns) if v is not None]
    if not values:
        return reason(turns, load)
    text = f"**{number(statistics.median(values))}**"
    if len(values) > 1:
        text += f" ({number(min(values))}-{number(max(values))})"
    return text + mark(turns, load)


def mark(turns, load):
    return " ~" if max([others(turn, load) for turn in turns], default=0) > BUSY else ""


def reason(turns, load):
    errors = [turn["loads"][load]["error"] for turn in turns if "error" in turn["loads"].get(load, {})]
    return f"failed: {errors[0]}".replace("|", "/").replace("\n", " ") if errors else ""


def peer_cell(results, name, load):
    indexes = [i for i, turn in enumerate(results["turns"]) if turn["engine"] == name]
    if not indexes:
        return ""
    turn = results["turns"][indexes[0]]
    mine = value(turn, load)
    if mine is None:
        return reason([turn], load)
    times = ratio(results, indexes[0], load)
    return number(mine) + (f" (x{times:.2f})" if times else "") + mark([turn], load)


def unit(load):
    return {"output": "out tok/s", "prompt": "tok/s", "gap": "ms"}[load.figure]


def row(cells):
    return "| " + " | ".join(cells) + " |"


def throughput_table(results, names):
    lines = [row(["", "Quire", *(engines.BY_NAME[name].title for name in names)]), row(["---"] * (len(names) + 2))]
    own = [turn for turn in results["turns"] if turn["engine"] == "quire"]
    for load in results["loads"]:
        about = loads.BY_NAME[load]
        lines.append(row([f"{about.title}, {unit(about)}", quire_cell(own, load),
                          *(peer_cell(results, name, load) for name in names)]))
    return lines


def latency_table(results):
    lines = [row(["", "load", "TTFT p50, p99 ms", "TPOT p50, p99 ms", "ITL p99 ms"]), row(["---"] * 5)]
    for name in dict.fromkeys(turn["engine"] for turn in results["turns"]):
        turns = [turn for turn in results["turns"] if turn["engine"] == name]
        for load in ("single", "batch24", "batch64"):
            def middle(key, of=turns, what=load):
                found = [v for v in (value(turn, what, key) for turn in of) if v is not None]
                return number(statistics.median(found)) if found else ""
            if middle("ttft_p50_ms"):
                lines.append(row([engines.BY_NAME[name].title, load,
                                  f"{middle('ttft_p50_ms')}, {middle('ttft_p99_ms')}",
                                  f"{middle('tpot_p50_ms')}, {middle('tpot_p99_ms')}", middle("itl_p99_ms")]))
    return lines if len(lines) > 2 else []


def start_table(results):
    lines = [row(["", "start to ready, s", "memory when ready, MB (PSS)", "after the loads, MB"]), row(["---"] * 4)]
    for name in dict.fromkeys(turn["engine"] for turn in results["turns"]):
        turns = [turn for turn in results["turns"] if turn["engine"] == name]
        ready = [s for turn in turns for s in turn["ready_s"]]
        if ready:
            spread = f" ({min(ready):.2f}-{max(ready):.2f})" if len(ready) > 1 else ""
            lines.append(row([engines.BY_NAME[name].title, f"{statistics.median(ready):.2f}{spread}",
                              megabytes(turns, "pss_ready"), megabytes(turns, "pss_after")]))
    return lines


def megabytes(turns, key):
    found = [turn[key] / 1e6 for turn in turns if turn.get(key)]
    return f"{statistics.median(found):,.0f}" if found else ""


def seed_lines(results):
    """Continuous batching against what serving was before: Quire's 64 at once over generate's best."""
    hf = [i for i, turn in enumerate(results["turns"]) if turn["engine"] == "hf"]
    if not hf:
        return []
    ours = beside(results, hf[0], "batch64")
    lines = []
    for load, what in (("one_by_one", "one at a time"), ("equal24", "in static batches of 24 equal requests"),
                       ("batch24", "in a static batch of the 24 log-normal requests")):
        theirs = value(results["turns"][hf[0]], load)
        if ours and theirs:
            lines.append(f"- Quire's 64 at once is {ours / theirs:.1f} times transformers' "
                         f"generate {what}.")
    return lines


def bare_lines(results):
    return [f"- {engines.BY_NAME[turn['engine']].title}, llama-bench (no HTTP): "
            + ", ".join(f"{key} {number(tokens)} tok/s" for key, tokens in sorted(turn["bare"].items())) + "."
            for turn in results["turns"] if turn.get("bare")]


def noise_line(results):
    shares = [run["others"] for turn in results["turns"] for load in turn["loads"].values() for run in load["runs"]]
    if not shares:
        return []
    return [f"Other programs took {100 * statistics.median(shares):.0f} % of the cores in the median measurement, "
            f"{100 * max(shares):.0f} % in the worst; figures with ~, and their ratios, had more than "
            f"{100 * BUSY:.0f} % taken."]


def markdown(results, plot):
    names = [name for name in dict.fromkeys(turn["engine"] for turn in results["turns"]) if name != "quire"]
    lines = [f"# Quire and its peers: {results['date']}{' (quick)' if results['quick'] else ''}", "",
             f"Machine: {results['machine']}; servers and clients on cores "
             f"{', '.join(map(str, results['cores']))}. Model: {results['model']} (bf16: its exact dequantization). "
             f"Commit {results['commit']}.", "",
             "One engine at a time, Quire before and after each peer. Quire: the median of its turns (least-most); "
             "(xN): Quire's turns beside the peer (the undisturbed one, if only one is) over the peer; for the gap the "
             "peer over Quire. "
             "Repeats have new prompts of the same lengths.", *noise_line(results), ""]
    lines += throughput_table(results, names) + [""]
    lines += seed_lines(results) + bare_lines(results) + [""]
    lines += latency_table(results) + [""] + start_table(results) + [""]
    if plot:
        lines += [f"![output tokens a second by load and engine]({plot})", ""]
    lines += [f"- {engines.BY_NAME[name].title}: {why}" for name, why in results["reasons"].items()]
    lines += ["Versions: " + "; ".join(f"{name}: {version}" for name, version in results["versions"].items()) + ".", "",
              "```sh", results["command"].strip(), "```", ""]
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text
