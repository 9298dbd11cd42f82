// Formats that have no panels of their own here become, row by row as they are packed, the nearest
// one that has. Numbers keep their bits where both are 4 or 8 bits wide; scales are rounded to f16.
// What that costs is far below a format's own step, but the values are not kernels/formats'
// exactly.
#pragma once

#include "kernels/weight.h"

namespace quire::cpu {

// q4_z, q4_K: q4_1; q5_K, q6_K, i8: q8_0; f8_e4m3: bf16; others: themselves.
Format panel_format(Format format);

// The columns of row `n` of `part` in the source's panel_format(): row_bytes() of it.
void transcode_row(const MatrixSource& source, const MatrixPart& part, int n, std::byte* out);

}  // namespace quire::cpu
