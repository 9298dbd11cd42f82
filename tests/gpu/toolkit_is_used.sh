#!/bin/sh
# toolkit_is_used.sh QUIRE_CUDA PLUGIN NVCC: what the configured build took for CUDA, held against
# what the machine has. 1: there is a toolkit of 13 or newer and no libquire_cuda.so was built.
# 77 (skipped): no toolkit, or a build that was asked to have none (QUIRE_REQUIRE_CUDA=1, as CI sets
# it, makes that a failure).
wish=$1 plugin=$2 nvcc=$3
[ -x "$nvcc" ] || nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
release=0
[ -x "$nvcc" ] && release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
if [ "${release:-0}" -lt 13 ]; then
  echo "skipped: no CUDA toolkit of 13 or newer here (nvcc: $nvcc, release ${release:-none})"
  exit 77
fi
echo "toolkit: $nvcc, release $release"
if [ "$wish" = OFF ] && [ "${QUIRE_REQUIRE_CUDA:-0}" != 1 ]; then
  echo "skipped: this build was configured with QUIRE_CUDA=OFF"
  exit 77
fi
if [ ! -f "$plugin" ]; then
  echo "FAILED: the toolkit was found and libquire_cuda.so was not built ($plugin)"
  exit 1
fi
echo "backend: $plugin, $(wc -c < "$plugin") bytes"
