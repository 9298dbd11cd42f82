// The ops other than the matrix product, one row or one work item at a time, as a table of plain
// functions: one table per instruction set, chosen once by the device. Arguments are plain pointers
// so that files compiled for an instruction set emit no inline function other files could pick up.
// Every function gives the same bits whatever else is in the batch and whichever thread runs it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/ids.h"
#include "common/model_spec.h"
#include "kernels/tensor.h"

namespace quire::cpu {

// Where one row of an Activation goes; see activation.h.
struct RowTarget {
  ActivationLayout layout = ActivationLayout::kF32;
  std::byte* data = nullptr;
  std::size_t stride = 0;         // bytes between rows
  std::size_t scales_offset = 0;  // kQ8, from the start of a row
  std::size_t sums_offset = 0;
  int columns = 0;
};

// CombineArgs in plain pointers. The program leaves one entry and needs a stack of kMaxCombineDepth
// at most.
inline constexpr int kMaxCombineDepth = 40;
struct CombineJob {
  const int* program = nullptr;
  int program_size = 0;
  const float* const* partials = nullptr;  // each [T][E]
  int columns = 0;                         // E
  const float* bias = nullptr;
  float* residual = nullptr;
  const float* norm_weight = nullptr;
  float eps = 0.0f;
  RowTarget out = {};  // where norm_weight is set
};

// One local KV head of the arena. Block layout: for each local head K [Dk][S], then V [S][Dp],
// where Dk is D rounded up to 2 and Dp to 16: tokens lie in lanes for q . k, dimensions for p . v.
// Of bfloat16 neighbours are pairs: K [Dk / 2][S][2], V [S / 2][Dp][2]. Of int8 they are fours,
// with scales, and Dk is D rounded up to 4: kv_bytes.h.
struct KvHead {
  std::byte* arena = nullptr;
  std::size_t block_bytes = 0;
  std::size_t head_offset = 0;  // bytes from the start of a block
  DType dtype = DType::kF32;
  int head_dim = 0;    // D
  int key_dim = 0;     // Dk
  int padded_dim = 0;  // Dp
  int block_size = 0;  // S, a multiple of 16
};

// One token's rotation and store.
struct RopeJob {
  float* row = nullptr;  // [(Hl + 2 Gl) * D]
  int num_heads = 0;     // Hl
  int num_kv_heads = 0;  // Gl
  int dims = 0;
  bool interleaved = false;
  const float* cos_sin = nullptr;  // of the token's position, [dims / 2][2]
  KvHead kv;                       // of local head 0; heads are kv_head_bytes apart
  std::size_t kv_head_bytes = 0;
  BlockId block = 0;
  int offset = 0;  // position within the block
};

// Positions of K and V in one tile, and in one split: both start at absolute position 0, whatever
// the batch. A query sums over a tile in one pass, over a split by online softmax, and splits are
// merged in order.
inline constexpr int kTilePositions = 64;
inline constexpr int kSplitPositions = 256;

// A few query tokens of one sequence, at rising positions, with the local query heads that share
// one KV head, over splits [split_begin, split_end).
struct AttendJob {
  const float* q = nullptr;  // first of these heads of the first token
  std::size_t q_stride = 0;  // floats between tokens
  int num_tokens = 0;
  int num_heads = 0;
  const std::int32_t* positions = nullptr;  // [num_tokens]
  const BlockId* block_table = nullptr;
  KvHead kv;
  std::size_t next_head_offset = 0;  // of the KV head attended next in these splits: read ahead
  float scale = 1.0f;
  int window = 0;         // as in AttentionSpec
  float soft_cap = 0.0f;  // as in AttentionSpec
  int split_begin = 0;
  int split_end = 0;
  float* scratch = nullptr;  // attend_scratch_floats
  // Either the finished result ...
  float* out = nullptr;        // first of these heads of the first token
  std::size_t out_stride = 0;  // floats between tokens
  // ... or, where not null, one token's unfinished sums of one split: [num_heads][Dp + 16] floats
  // as Dp weighted values, the maximum and the sum of weights.
  float* partial = nullptr;
};
// On a boundary of 64 bytes. A row has q, two sets of values, the lanes of its sum, two sets of its
// highest score and total, and its position; a tile has scores (attention_scratch.h).
constexpr std::size_t attend_scratch_floats(int num_rows, int padded_dim) {
  const std::size_t row = 3 * static_cast<std::size_t>(padded_dim) + 16 + 2 * 2 + 1;
  return static_cast<std::size_t>(num_rows) * row + 8 * kTilePositions;
}
constexpr std::size_t partial_stride(int padded_dim) {
  return static_cast<std::size_t>(padded_dim) + 16;
}

struct VectorOps {
  void (*store_row)(const float* x, const RowTarget& out, int row);
  void (*norm_row)(const float* x, const float* weight, float eps, const RowTarget& out, int row);
  void (*combine_row)(const CombineJob& job, int row);
  // Columns [begin, end) of a row; begin is a multiple of 64, end too unless it is the last column.
  void (*gated_span)(Gate gate, const float* x, const float* up, int begin, int end,
                     const RowTarget& out, int row);
  void (*rope_store)(const RopeJob& job);

  void (*attend)(const AttendJob& job);
  // Merges `num_splits` partials, split_stride floats apart, in order into the first of them, and
  // writes out[D] of one head.
  void (*merge_splits)(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                       int padded_dim, float* out);

  // --- the sampler's passes over n logits ---
  float (*largest)(const float* x, int n);          // NaN if any is NaN
  int (*find)(const float* x, int n, float value);  // first index that equals value, or n
  // Sum of exp((x - highest) * inverse_temperature) over x >= lowest, in a fixed order of lanes.
  float (*sum_weights)(const float* x, int n, float highest, float inverse_temperature,
                       float lowest);
  void (*weights)(const float* x, int n, float highest, float inverse_temperature, float* out);
  int (*count_at_least)(const float* x, int n, float lowest);
  // Appends (value, first_id + index) of x >= lowest in order; returns how many.
  int (*gather_at_least)(const float* x, int n, float lowest, TokenId first_id, float* values,
                         TokenId* ids);
};

const VectorOps& vector_ops_avx512();
const VectorOps& vector_ops_avx2();

// The attention entries of the two tables, in files of their own.
void attend_avx512(const AttendJob& job);
void attend_avx2(const AttendJob& job);
void merge_splits_avx512(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                         int padded_dim, float* out);
void merge_splits_avx2(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                       int padded_dim, float* out);

}  // namespace quire::cpu
