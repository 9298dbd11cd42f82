"""Bars of output tokens a second, by load and engine: plot.py RUNS.json OUT.png (needs matplotlib)."""

import json
import statistics
import sys

import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot

import engines
import loads
import table


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        results = json.load(file)
    shown = [load for load in results["loads"] if loads.BY_NAME[load].figure == "output"]
    names = list(dict.fromkeys(turn["engine"] for turn in results["turns"]))
    figure, axis = pyplot.subplots(figsize=(11, 5))
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        turns = [turn for turn in results["turns"] if turn["engine"] == name]
        heights, positions = [], []
        for index, load in enumerate(shown):
            values = [v for v in (table.value(turn, load) for turn in turns) if v is not None]
            if values:
                positions.append(index + (place - len(names) / 2 + 0.5) * width)
                heights.append(statistics.median(values))
        axis.bar(positions, heights, width, label=engines.BY_NAME[name].title)
    axis.set_xticks(range(len(shown)), [loads.BY_NAME[load].title.replace(", ", "\n", 1) for load in shown], fontsize=8)
    axis.set_ylabel("output tokens a second")
    axis.set_title(f"{results['model']}, cores {', '.join(map(str, results['cores']))}, {results['date']}, "
                   f"commit {results['commit']}", fontsize=9)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
