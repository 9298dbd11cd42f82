#!/usr/bin/env bash
# Sets up, builds everything and runs the tests.
#   --long        the complete run (an hour or more on two cores): the tests that take long as well, such
#                 as the simulation's 10,000 seeds; then the suites under AddressSanitizer and
#                 UndefinedBehaviorSanitizer; then the rooms with threads under ThreadSanitizer; then every
#                 fuzzer for a while. All steps run, whatever fails; a summary names each.
#   --step NAME   only this step of the long run: tests, chaos, address, thread or fuzz
#   --asan, --tsan  the same as --step address and --step thread
# Anything else goes to ctest. QUIRE_FUZZ_SECONDS: how long each fuzzer runs (60).
# Shared test data is found through QUIRE_TEST_DATA (default: the folder `shared` beside the project);
# tests that need it skip without it, and fail with QUIRE_REQUIRE_TEST_DATA=1.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export QUIRE_CACHE=${QUIRE_CACHE:-$HOME/.cache/quire}
export QUIRE_PYTHON=$QUIRE_CACHE/venv/bin/python

# The long run: each step is a function below.
steps=(
  tests    # the default build, nothing left out but chaos
  chaos    # every fault of tests/chaos, as one table, and a short soak
  address  # AddressSanitizer (with leaks) and UndefinedBehaviorSanitizer
  thread   # ThreadSanitizer
  fuzz     # tests/fuzz
)

run_tests() {  # run_tests FOLDER CTEST-ARGUMENT...; two at a time: tests start processes of their own
  ctest --test-dir "$1" --output-on-failure -j 2 "${@:2}" ${arguments[@]+"${arguments[@]}"}
}

configure() {  # configure FOLDER CMAKE-ARGUMENT...
  # Without -Werror: g++ warns about code that the sanitizers themselves put in, clang about other things.
  cmake -S "$source_dir" -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQUIRE_BENCH=OFF \
    -DQUIRE_WERROR=OFF "${@:2}" >/dev/null
}

build() {  # build FOLDER TARGET...
  NINJA_STATUS='[%f/%t %es] ' ninja -C "$@"
}

step_tests() {
  run_tests "$source_dir/build" -LE chaos
}

step_chaos() {
  local code=0
  "$source_dir/tests/chaos/run.py" --bin "$source_dir/build/bin" || code=1
  "$source_dir/tests/chaos/soak.py" --bin "$source_dir/build/bin" --minutes 1 --coordinator --out - || code=1
  return $code
}

# Reports go to files: a program that a test started, and that another starts again, has no other voice.
collect_reports() {  # collect_reports FOLDER: what to add to the sanitizers' options
  rm -rf "$1/reports"
  mkdir -p "$1/reports"
  printf ':log_path=%s/reports/report' "$1"
}

no_reports() {  # no_reports FOLDER
  [ -z "$(ls "$1/reports")" ] && return
  head -n 60 "$1"/reports/* >&2
  return 1
}

step_address() {
  local folder=$source_dir/build-asan code=0 log
  configure "$folder" -DQUIRE_SANITIZE=address
  build "$folder" all
  log=$(collect_reports "$folder")
  export UBSAN_OPTIONS=print_stacktrace=1$log
  # Not use after return: g++ 12 lays its copies of stack frames down without the alignment that AVX-512
  # variables have, and the first store of one ends the program.
  export ASAN_OPTIONS=strict_string_checks=1:detect_stack_use_after_return=0$log
  run_tests "$folder" -LE 'long|not_sanitized|mpi' || code=1
  # Open MPI keeps memory of plugins that it has unloaded: such leaks have no name to suppress.
  ASAN_OPTIONS+=:detect_leaks=0
  run_tests "$folder" -L mpi -LE 'long|not_sanitized' || code=1
  no_reports "$folder" && return $code
}

step_thread() {
  local folder=$source_dir/build-tsan rules=$source_dir/tests/sanitizers code=0
  configure "$folder" -DQUIRE_SANITIZE=thread
  build "$folder" threaded_tests
  export TSAN_OPTIONS=suppressions=$rules/tsan.supp:second_deadlock_stack=1
  TSAN_OPTIONS+=$(collect_reports "$folder")
  run_tests "$folder" -L threads -LE long || code=1
  no_reports "$folder" && return $code
}

step_fuzz() {
  local folder=$source_dir/build-fuzz
  configure "$folder" -DQUIRE_FUZZ=ON -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14
  build "$folder" fuzzers
  "$source_dir/tests/fuzz/run.sh" "$folder" "${QUIRE_FUZZ_SECONDS:-60}"
}

run_step() {  # in a shell of its own, so that a failure ends the step and not the run
  local started=$SECONDS code=0
  printf '\033[1m== %s\033[0m\n' "$1" >&2
  set +e
  (set -e; "step_$1")
  code=$?
  set -e
  if [ $code = 0 ]; then summary+=("passed  $1 ($((SECONDS - started)) s)"); return; fi
  summary+=("FAILED  $1 ($((SECONDS - started)) s)")
  failed=1
}

long=0
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --long) long=1 ;;
    --asan) long=1; steps=(address) ;;
    --tsan) long=1; steps=(thread) ;;
    --step)
      long=1
      if ! declare -F "step_${2:-}" >/dev/null; then
        echo "test.sh: --step needs one of: ${steps[*]}" >&2
        exit 64
      fi
      steps=("$2")
      shift ;;
    --help|-h) sed -n '2,/^set/s/^# //p' "$0"; exit 0 ;;
    *) arguments+=("$1") ;;
  esac
  shift
done

if [ $long = 0 ]; then
  "$source_dir/deploy/setup.sh" --tests
  run_tests "$source_dir/build" -LE long
  exit
fi
"$source_dir/deploy/setup.sh" --tests --fuzz
summary=()
failed=0
for step in "${steps[@]}"; do run_step "$step"; done
printf '\033[1m== summary\033[0m\n' >&2
printf '%s\n' "${summary[@]}" >&2
exit $failed
