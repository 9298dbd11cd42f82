#!/usr/bin/env bash
# Sets up, builds everything and runs the tests. --long runs those that take long as well.
# Shared test data is found through QUIRE_TEST_DATA (default: the folder `shared` beside the project);
# tests that need it skip without it, and fail with QUIRE_REQUIRE_TEST_DATA=1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
labels=(-LE long)
arguments=()
for argument in "$@"; do
  case $argument in
    --long) labels=() ;;
    --help|-h) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

"$here/setup.sh" --tests
export QUIRE_CACHE=${QUIRE_CACHE:-$HOME/.cache/quire}
export QUIRE_PYTHON=$QUIRE_CACHE/venv/bin/python
# Two at a time: the tests start processes of their own.
exec ctest --test-dir "$here/../build" --output-on-failure -j 2 ${labels[@]+"${labels[@]}"} \
  ${arguments[@]+"${arguments[@]}"}
