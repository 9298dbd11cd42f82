// Rows of any stored format to fp32 and back. One row of the table per Format; a new format is one
// header with decode and encode of a block, and one row here.
#pragma once

#include "common/format.h"

namespace quire::formats {

// Decodes `columns` elements (a multiple of the format's block) starting at `row`.
void decode_row(Format format, const std::byte* row, int columns, float* out);
// Decodes columns [first_column, first_column + columns) of the row at `row`; both are multiples of
// the format's `cut`.
void decode_columns(Format format, const std::byte* row, int first_column, int columns, float* out);
// Quantizes `columns` elements into row_bytes(format, columns) bytes.
void encode_row(Format format, const float* x, int columns, std::byte* row);

}  // namespace quire::formats
