"""What was measured on a GPU, as bench/results/gpu-<device>-<date>.{json,md}.

{"device", "date", "machine": {...}, "parts": {part: {"steps": {step: {
    "status": "passed" | "failed" | "skipped" | "late", "build", "at", "seconds", "rows": [...],
    "note": the end of what a step that did not pass had to say}}}}}

A row is one result: what the benches print, perhaps with "goal" (a sentence) and "met". A file is
written after every step, whole or not at all, so a run that is cut off loses one step. Steps of two
files of one device are merged by when they ran: `python3 results.py merge INTO FROM...`.
"""

import json
import os
import re
import sys


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def file_name(device, date):
    return f"gpu-{slug(device)}-{date}.json"


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def merge(into, other):
    """The steps of `other` where they are newer. A step that was not run replaces nothing."""
    if into.get("device") != other.get("device"):
        raise ValueError(f"results of {other.get('device')} do not belong to {into.get('device')}")
    into.setdefault("machine", {}).update(other.get("machine", {}))
    for part, content in other.get("parts", {}).items():
        steps = into.setdefault("parts", {}).setdefault(part, {"steps": {}})["steps"]
        for name, step in content["steps"].items():
            old = steps.get(name)
            if old is None or (step["status"] != "late" and step["at"] >= old["at"]):
                steps[name] = step
    return into


class Results:
    """The file of one device and day. `folders`: where it may lie already; the first is written."""

    def __init__(self, folders, device, date, machine=None):
        self.name = file_name(device, date)
        self.path = os.path.join(folders[0], self.name)
        self.data = {"device": device, "date": date, "machine": machine or {}, "parts": {}}
        for folder in reversed(folders):
            path = os.path.join(folder, self.name)
            if os.path.exists(path):
                merge(self.data, read(path))
        self.data["machine"].update(machine or {})

    def step(self, part, name):
        return self.data["parts"].get(part, {}).get("steps", {}).get(name)

    def is_done(self, part, name, build):
        """Whether the step passed, with this build."""
        step = self.step(part, name)
        return step is not None and step["status"] == "passed" and step["build"] == build

    def record(self, part, name, step):
        steps = self.data["parts"].setdefault(part, {"steps": {}})["steps"]
        if step["status"] == "late" and name in steps:
            return
        steps[name] = step
        self.save()

    def save(self):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        write_whole(self.path, json.dumps(self.data, indent=1) + "\n")
        write_whole(self.path[: -len("json")] + "md", markdown(self.data))


def write_whole(path, text):
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def number(value):
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return str(value)


def table(rows):
    columns = []
    for row in rows:
        columns += [key for key in row if key not in columns and key != "bench"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(number(row.get(key, "")) for key in columns) + " |")
    return lines


def markdown(data):
    lines = [f"# {data['device']}, {data['date']}", ""]
    lines += [f"{key}: {value}  " for key, value in sorted(data["machine"].items())]
    lines += ["", "Made by `tests/gpu/run.sh` (what each part shows: tests/gpu/README.md); the same "
              "in full beside this file, as JSON.", ""]
    for part, content in data["parts"].items():
        lines += [f"## {part}", ""]
        for name, step in content["steps"].items():
            lines.append(f"- {name}: {step['status']}, {step['seconds']:.0f} s, build {step['build']}")
            if step.get("note"):
                lines += ["", "```", *step["note"].splitlines()[-20:], "```", ""]
        lines.append("")
        rows = [row for step in content["steps"].values() for row in step.get("rows", [])]
        for bench in dict.fromkeys(row.get("bench", "result") for row in rows):
            lines += [f"### {bench}", ""]
            lines += table([row for row in rows if row.get("bench", "result") == bench]) + [""]
    return "\n".join(lines)


def main(arguments):
    if len(arguments) < 3 or arguments[0] != "merge":
        print("usage: results.py merge INTO.json FROM.json...", file=sys.stderr)
        return 64
    into = arguments[1]
    data = read(into) if os.path.exists(into) else None
    for path in arguments[2:]:
        data = read(path) if data is None else merge(data, read(path))
    write_whole(into, json.dumps(data, indent=1) + "\n")
    write_whole(into[: -len("json")] + "md", markdown(data))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
