#!/bin/sh
# isa_symbols.sh ARCHIVE: no function that a file compiled for AVX2 or AVX-512 offers to others as
# an inline copy (weak symbol) may also exist in another object: the linker keeps one of them, and
# it could be one that this processor cannot run.
set -eu
nm -A "$1" | awk '
  $(NF-1) ~ /^[WVu]$/ {
    object = $1; sub(/^[^:]*:/, "", object); sub(/:.*/, "", object)
    count[$NF]++
    if (object ~ /_avx(2|512)[.]/) isa[$NF] = object
  }
  END {
    for (symbol in isa) if (count[symbol] > 1) { print symbol, "of", isa[symbol]; bad = 1 }
    exit bad
  }'
