#!/usr/bin/env bash
# run.sh BUILD SECONDS [NAME...]: runs the fuzzers that BUILD holds (all, or those named), each for so
# many seconds from its seeds and from what earlier runs in BUILD have found. An input that breaks one
# stays in BUILD/crashes; `BUILD/fuzz/fuzz_NAME FILE` replays it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 seconds=$2
shift 2
if [ $# = 0 ]; then
  for program in "$build"/fuzz/fuzz_*; do
    name=${program##*/fuzz_}
    [ "$name" = seeds ] || set -- "$@" "$name"
  done
fi
export UBSAN_OPTIONS=print_stacktrace=1
mkdir -p "$build/crashes" "$build/log"
"$build/fuzz/fuzz_seeds" "$build/seeds"

fuzz() {  # fuzz NAME: 0 if nothing was found
  local found=$build/corpus/$1 log=$build/log/$1 folder folders=()
  mkdir -p "$found"
  for folder in "$here/corpus/$1" "$build/seeds/$1"; do
    [ ! -d "$folder" ] || folders+=("$folder")
  done
  # rss: a bomb in a file of a few kilobytes shows; timeout: so does a loop without end.
  "$build/fuzz/fuzz_$1" "$found" ${folders[@]+"${folders[@]}"} -max_total_time="$seconds" \
    -rss_limit_mb=2048 -timeout=10 -artifact_prefix="$build/crashes/$1-" >"$log" 2>&1
}

failed=0
for name in "$@"; do
  if fuzz "$name"; then
    echo "passed  $name: $(sed -n 's/^Done \([0-9]* runs in [0-9]*\) second.*/\1 s/p' "$build/log/$name")," \
      "$(ls "$build/corpus/$name" | wc -l) inputs kept"
  else
    failed=1
    echo "FAILED  $name: $build/log/$name ends with"
    tail -n 40 "$build/log/$name"
  fi
done
exit $failed
