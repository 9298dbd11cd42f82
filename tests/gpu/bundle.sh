#!/usr/bin/env bash
# Makes what a machine with a GPU, but without gRPC, MPI or a package registry, needs to run the parts of
# run.sh: stripped programs, libquire_cuda.so for one architecture, the shared libraries they need (but
# glibc's, CUDA's and NCCL's), small models with their goldens, shapes of large ones.
#   bundle.sh [--build FOLDER] [--out FOLDER] [--architecture 90a] [--no-build]
# The result (default build-gpu-bundle/, which git ignores) is one archive and a file of facts; with the
# tracked files of the checkout it must stay within what may travel, 64 MiB.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build-gpu
out=$root/build-gpu-bundle
architecture=90a
limit=${QUIRE_GPU_BUNDLE_LIMIT:-$((64 << 20))}
data=${QUIRE_TEST_DATA:-$root/../shared}
no_build=0
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2 ;;
    --out) out=$2 ;;
    --architecture) architecture=$2 ;;
    --no-build) no_build=1; shift; continue ;;
    *) sed -n '2,/^set/s/^# //p' "$0"; exit 64 ;;
  esac
  shift 2
done

programs=(quire quire-worker quire-coordinator bench_serve bench_cuda_attention bench_cuda_linear bench_cuda_meet)
tests=(gpu_ops_test gpu_golden_test)
modules=(libquire_cuda.so libquire_kernel_trace.so)
models=(stories260K/hf tiny-random/llama-rope3 tiny-random/llama-yarn-bias)

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }

build_all() {
  say "building in $build for sm_$architecture"
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQUIRE_CUDA=ON -DQUIRE_BENCH=ON \
    -DCMAKE_CUDA_ARCHITECTURES="$architecture-real" >/dev/null
  ninja -C "$build" "${programs[@]}" "${tests[@]}" quire_cuda quire_kernel_trace
}

# Shared libraries that $1 needs, as "name path"; glibc's own belong to the machine, CUDA's are there.
libraries_of() {
  ldd "$1" | awk '$2 == "=>" {print $1, $3}' |
    grep -Ev '^(libc|libm|libdl|libpthread|librt|libresolv|libutil|libmvec|libanl)\.so|^ld-linux' |
    grep -Ev '^lib(cublas|cublasLt|cudart|cupti|nccl|cuda|nvrtc)\.so' || true
}

# Every program finds what it needs in the bundle alone, on a machine that has only glibc and CUDA.
check_closed() {  # check_closed FOLDER
  local file outside
  for file in "$1"/bin/* "$1"/lib/*; do
    outside=$(LD_LIBRARY_PATH=$1/lib libraries_of "$file" | awk -v lib="$1/lib/" 'index($2, lib) != 1')
    [ -z "$outside" ] && continue
    echo "bundle.sh: $(basename "$file") needs what the bundle does not have: $outside" >&2
    exit 1
  done
}

collect() {  # collect FOLDER
  local file name path
  mkdir -p "$1/bin" "$1/lib" "$1/data/models" "$1/models"
  for file in "${programs[@]}"; do cp "$build/bin/$file" "$1/bin/"; done
  for file in "${tests[@]}"; do cp "$build/tests/$file" "$1/bin/"; done
  for file in "${modules[@]}"; do cp "$build/bin/$file" "$1/bin/"; done
  for file in "$1"/bin/*; do
    libraries_of "$file"
  done | sort -u | while read -r name path; do
    cp -L "$path" "$1/lib/$name"
  done
  chmod -R u+w "$1"
  strip --strip-all "${programs[@]/#/$1/bin/}" "${tests[@]/#/$1/bin/}"
  strip --strip-unneeded "$1"/lib/* "${modules[@]/#/$1/bin/}"
  for name in "${models[@]}"; do
    if [ ! -d "$data/data/models/$name" ]; then
      echo "bundle.sh: no $data/data/models/$name; set QUIRE_TEST_DATA" >&2
      exit 66
    fi
    mkdir -p "$1/data/models/$name"
    cp "$data/data/models/$name"/* "$1/data/models/$name/"
  done
  if [ -d "$root/bench/models" ]; then cp -r "$root/bench/models/." "$1/models/"; fi
}

# What travels beside the bundle: tracked files and untracked ones that git does not ignore.
tree_bytes() {
  (cd "$root" && git ls-files -z --cached --others --exclude-standard 2>/dev/null |
    xargs -0 -r stat --printf '%s\n' 2>/dev/null | awk '{n += $1} END {print n + 0}')
}

[ $no_build = 1 ] || build_all
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
collect "$staging"
check_closed "$staging"
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$root" status --porcelain --untracked-files=no 2>/dev/null)" ] || commit=$commit-changed
rm -rf "$out"
mkdir -p "$out"
tar -C "$staging" -c . | xz -T0 -2 > "$out/bundle.tar.xz"
sum=$(sha256sum "$out/bundle.tar.xz" | cut -c1-12)
printf '{"commit": "%s", "sum": "%s", "architecture": "%s", "unpacked_bytes": %s}\n' \
  "$commit" "$sum" "$architecture" "$(du -sb "$staging" | cut -f1)" > "$out/facts.json"
total=$(($(tree_bytes) + $(du -sb "$out" | cut -f1)))
say "bundle: $out, $(du -sb "$out" | cut -f1) bytes; with the checkout's files $total of $limit"
if [ "$total" -gt "$limit" ]; then
  rm -rf "$out"
  echo "bundle.sh: $total bytes would travel, $limit may; leave something out" >&2
  exit 1
fi
