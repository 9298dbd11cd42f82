// One local matrix (this rank's shard) in the layout its backend packed it to.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/format.h"
#include "common/shard.h"
#include "kernels/tensor.h"

namespace quire {

// Rows stacked along N before packing: rows [0, rows) of a file's matrix, each `row_stride` bytes
// apart, of which `columns` elements in `format` are read from the start of each row. `data` points
// at the block of the first owned column, so a column slice of a row-parallel matrix is offset by
// its caller. `row_scales` [rows] belong to formats that have them (null: all 1) and must live
// until pack() returns.
struct MatrixPart {
  const std::byte* data = nullptr;
  std::size_t row_stride = 0;
  int rows = 0;
  const float* row_scales = nullptr;
};

// In what order a linear layer sums over its local K. Column-parallel: one leaf, one output.
// Row-parallel: this rank's leaves; after leaf i is summed on its own, `merges[i]` times the two
// top entries of the stack of partial sums are added (lower + upper). What is left on the stack
// at the end, bottom first, are this rank's maximal subtrees: `num_outputs` partial sums.
struct SumPlan {
  std::vector<Range> leaves;  // element ranges of the local K
  std::vector<int> merges;
  int num_outputs = 1;

  static SumPlan whole(int columns) { return {{{0, columns}}, {0}, 1}; }
};

// What to pack. `first_column` is where the first owned column is in its block: other than 0 only
// where a cut falls inside a superblock. It, `columns` and every leaf of `sum` are multiples of the
// format's `cut`.
struct MatrixSource {
  Format format = Format::kF32;
  int columns = 0;  // local K
  std::vector<MatrixPart> parts;
  SumPlan sum;
  int first_column = 0;
};

// InvalidArgument says which of the above does not hold.
absl::Status check_source(const MatrixSource& source);

struct Weight {
  Format format = Format::kF32;
  ActivationLayout input = ActivationLayout::kF32;
  int rows = 0;     // N
  int columns = 0;  // K
  SumPlan sum;
  void* data = nullptr;  // backend's layout, from Device::allocate
  std::size_t bytes = 0;
};

// The plan by which rank `owned` sums its leaves of `cut`. Element ranges are relative to the first
// owned element. Empty plan (no leaves, zero outputs) when the rank owns none.
SumPlan make_sum_plan(const LeafCut& cut, Range owned_leaves);

}  // namespace quire
