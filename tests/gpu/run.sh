#!/usr/bin/env bash
# Runs parts of what only a GPU can show: see README.md.  run.sh PART... | all  [--again] [--date YYYY-MM-DD]
exec python3 -B "$(dirname "${BASH_SOURCE[0]}")/run.py" "$@"
