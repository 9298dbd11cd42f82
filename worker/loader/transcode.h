// Quantized matrices of Hugging Face checkpoints, rewritten into the blocks that kernels read: the
// part that a rank owns and nothing else. One file per scheme: transcode_<scheme>.cpp; each block
// of 32 columns gets the scale and the zero of its group.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "worker/loader/stored.h"

namespace quire {

inline constexpr int kTranscodedBlock = 32;  // columns; edges of a part are multiples of it

// The stored tensors of a recipe where they are mapped.
struct RecipeBytes {
  const Recipe* recipe = nullptr;
  StoredView values, scales, zeros, order;
};

// What is to be made: rows [N] and columns [K] of the whole matrix, as rows of `row_stride` bytes.
struct TranscodeJob {
  Range rows;
  Range columns;
  std::byte* out = nullptr;
  std::size_t row_stride = 0;
  int num_threads = 1;
};

// InvalidArgument: a reason without the tensor's name.
absl::Status transcode_awq(const RecipeBytes& in, const TranscodeJob& job);     // to kQ4_Z
absl::Status transcode_gptq(const RecipeBytes& in, const TranscodeJob& job);    // kQ4_Z or kQ8_0
absl::Status transcode_packed(const RecipeBytes& in, const TranscodeJob& job);  // to kQ4_Z

}  // namespace quire
