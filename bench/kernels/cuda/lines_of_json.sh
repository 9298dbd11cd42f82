#!/bin/sh
# Runs a bench and expects at least two lines of output, each of them an object of JSON whose times are
# numbers above zero.
"$@" > "${TMPDIR:-/tmp}/bench_lines.$$" || { echo "FAILED: $*"; rm -f "${TMPDIR:-/tmp}/bench_lines.$$"; exit 1; }
python3 - "${TMPDIR:-/tmp}/bench_lines.$$" <<'P'
import json, os, sys
lines = open(sys.argv[1]).read().splitlines()
os.unlink(sys.argv[1])
assert len(lines) >= 2, lines
for line in lines:
    row = json.loads(line)
    assert row["bench"].startswith("cuda_"), row
    for key, value in row.items():
        if key.endswith("us") or key.endswith("_s"):
            assert value > 0, (key, line)
    print(line)
P
