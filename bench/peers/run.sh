#!/usr/bin/env bash
# One command for the comparison with other engines: brings them (once), runs the same loads on each in
# turn with the same cores, and writes a table and a plot to bench/results. `run.sh --help` tells more.
# Needs a build of Quire (deploy/setup.sh, with the programs quire-bench and bench_intruder: --tests).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec /usr/bin/python3 -B "$here/run.py" "$@"
