#!/usr/bin/env bash
# Sets up, builds everything and runs the tests.
#   --long        the complete run (an hour or more on two cores): the tests that take long as well, such
#                 as the simulation's 10,000 seeds; then the suites under AddressSanitizer and
#                 UndefinedBehaviorSanitizer; then the rooms with threads under ThreadSanitizer; then every
#                 fuzzer for a while. All steps run, whatever fails; a summary names each.
#   --step NAME   only this step of the long run: tests, address, thread or fuzz
# Anything else goes to ctest. QUIRE_FUZZ_SECONDS: how long each fuzzer runs (60).
# Shared test data is found through QUIRE_TEST_DATA (default: the folder `shared` beside the project);
# tests that need it skip without it, and fail with QUIRE_REQUIRE_TEST_DATA=1.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export QUIRE_CACHE=${QUIRE_CACHE:-$HOME/.cache/quire}
export QUIRE_PYTHON=$QUIRE_CACHE/venv/bin/python

# The long run: each step is a function below. A further one (chaos, soak) is a line here.
steps=(
  tests    # the default build, nothing left out
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
  run_tests "$source_dir/build"
}

step_address() {
  local folder=$source_dir/build-asan rules=$source_dir/tests/sanitizers
  configure "$folder" -DQUIRE_SANITIZE=address
  build "$folder" all
  # Not use after return: g++ 12 lays its copies of stack frames down without the alignment that AVX-512
  # variables have, and the first store of one ends the program.
  export ASAN_OPTIONS=strict_string_checks=1:detect_stack_use_after_return=0
  export LSAN_OPTIONS=suppressions=$rules/lsan.supp:print_suppressions=0
  export UBSAN_OPTIONS=print_stacktrace=1
  run_tests "$folder" -LE 'long|not_sanitized'
}

step_thread() {
  local folder=$source_dir/build-tsan rules=$source_dir/tests/sanitizers
  configure "$folder" -DQUIRE_SANITIZE=thread
  build "$folder" threaded_tests
  export TSAN_OPTIONS=suppressions=$rules/tsan.supp:halt_on_error=1:second_deadlock_stack=1
  run_tests "$folder" -L threads -LE long
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
