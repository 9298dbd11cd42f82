// One attention call as its kernels see it: a plain struct passed by value. All pointers are device
// memory. Plain C++: included by host and device code.
//
// A "pair" is one (token, query head) of a row and KV head: pair q of local KV head g is token
// q / heads(g) of the row and query head first_head_of(g) + q % heads(g). Kernels work on runs of
// neighbouring pairs, so that K and V are read once for all query heads of a group.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/ids.h"

namespace quire::cuda {

inline constexpr int kTilePositions = 64;    // scored and weighed together
inline constexpr int kSplitPositions = 256;  // summed together; splits are merged in order
inline constexpr int kSplitTiles = kSplitPositions / kTilePositions;
inline constexpr int kNoWindow = 1 << 30;

struct AttentionProblem {
  const float* qkv = nullptr;
  std::int64_t qkv_stride = 0;  // floats
  void* out = nullptr;          // [T][Hl * D]
  bool out_is_bf16 = false;

  int num_heads = 0;  // Hl
  int num_kv_heads = 0;
  int head_dim = 0;
  int first_head = 0;
  int first_kv_head = 0;
  int group_heads = 1;
  int max_group_heads = 1;   // most local query heads of a local KV head
  int window = kNoWindow;    // position p sees keys in (p - window, p]
  float scale_log2e = 1.0f;  // exp(scale * x) = 2^(scale_log2e * x)
  // A soft cap: exp(cap * tanh(scale * x / cap)) = 2^(cap_log2e - 2 cap_log2e / (2^(cap_rate * x) +
  // 1)). 0: none.
  float cap_log2e = 0.0f;
  float cap_rate = 0.0f;

  const std::byte* kv = nullptr;  // [num_blocks], see row/row.h
  std::int64_t block_bytes = 0;
  int block_size = 16;

  int num_tokens = 0;
  int num_rows = 0;
  int max_blocks = 0;
  const std::int32_t* positions = nullptr;
  const std::int32_t* row_begin = nullptr;
  const std::int32_t* context = nullptr;
  const BlockId* block_tables = nullptr;

  // Rows of at most so many tokens belong to the decode kernel, longer ones to the prefill kernel.
  int decode_tokens = 1;

  // Leading splits that rows share; see Batch. Used where there are slots.
  int num_shared_runs = 0;
  const std::int32_t* shared_runs = nullptr;
  const std::int32_t* shared_rows = nullptr;
  const std::int32_t* shared_of_row = nullptr;  // null: no row shares anything

  // Partial results of splits: a slot holds those of all heads of one (token, split).
  int slots = 0;
  std::int32_t* first_slot = nullptr;  // [T] of a token's split 0; -1: the result is in `out`
  float* partial_tops = nullptr;       // [slots][Hl][2]: highest score (log2 units), sum of weights
  float* partial_values = nullptr;     // [slots][Hl][D]: sum of weights times V
};

}  // namespace quire::cuda
