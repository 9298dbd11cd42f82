// The step's plan as flat arrays in device memory, built by worker/runner, one per step in flight,
// passed as const& and never global.
#pragma once

#include "common/ids.h"
#include "kernels/tensor.h"

namespace quire {

struct Batch {
  int num_tokens = 0;                          // T
  int num_rows = 0;                            // B
  int block_size = 16;                         // S
  int max_blocks = 0;                          // width of block_tables
  const TokenId* tokens = nullptr;             // [T]
  const std::int32_t* positions = nullptr;     // [T]
  const std::int32_t* row_of_token = nullptr;  // [T]
  const std::int32_t* row_begin = nullptr;     // [B + 1], row b's tokens are [begin[b], begin[b+1])
  const std::int32_t* context = nullptr;       // [B], KV length of the row after this step
  const BlockId* block_tables = nullptr;       // [B][max_blocks]
  int num_samples = 0;                         // rows that sample
  const std::int32_t* sample_tokens = nullptr;  // [num_samples], indices into the T tokens
};

// K and V of one layer on this rank; base pointers into the arena. The layout inside a block is the
// backend's own; sizes come from Ops::kv_block_bytes.
struct KvLayer {
  std::byte* data = nullptr;  // [num_blocks][block bytes]
  std::size_t block_bytes = 0;
  DType dtype = DType::kF32;
  int num_kv_heads = 0;  // local
  int head_dim = 0;
  int block_size = 16;
};

struct AttentionSpec {
  int num_heads = 0;     // local query heads
  int num_kv_heads = 0;  // local KV heads
  int head_dim = 0;
  int first_head = 0;     // global index of local query head 0
  int first_kv_head = 0;  // global index of local KV head 0
  int group_heads = 1;    // query heads per KV head, of the whole model
  float scale = 1.0f;     // applied to q . k

  // local KV head that local query head h reads
  int kv_head_of(int h) const { return (first_head + h) / group_heads - first_kv_head; }
};

}  // namespace quire
