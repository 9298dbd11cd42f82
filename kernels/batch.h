// The step's plan as flat arrays in device memory, built by worker/runner, one per step in flight,
// passed as const& and never global.
#pragma once

#include "common/ids.h"
#include "kernels/tensor.h"

namespace quire {

// The tokens that are sampled, each once, in order: what a batch is without the others, over the
// same rows. Once the last layer has stored K and V of all tokens, nothing else is read of it.
struct SampledTokens {
  int num_tokens = 0;
  const std::int32_t* tokens = nullptr;         // [num_tokens], indices into the T tokens
  const std::int32_t* positions = nullptr;      // [num_tokens]
  const std::int32_t* row_of_token = nullptr;   // [num_tokens]
  const std::int32_t* row_begin = nullptr;      // [B + 1]; a row may have none
  const std::int32_t* sample_tokens = nullptr;  // [num_samples], indices into these
};

struct Batch {
  int num_tokens = 0;   // T
  int num_rows = 0;     // B
  int block_size = 16;  // S
  int max_blocks = 0;   // width of block_tables
  // Most tokens of a row, where each has one or more and none reads what another stores in this
  // step; 0: not known.
  int most_tokens = 0;
  const TokenId* tokens = nullptr;             // [T]
  const std::int32_t* positions = nullptr;     // [T]
  const std::int32_t* row_of_token = nullptr;  // [T]; -1: stored nowhere
  const std::int32_t* row_begin = nullptr;     // [B + 1], row b's tokens are [begin[b], begin[b+1])
  const std::int32_t* context = nullptr;       // [B], KV length of the row after this step
  const BlockId* block_tables = nullptr;       // [B][max_blocks]
  int num_samples = 0;                         // rows that sample
  const std::int32_t* sample_tokens = nullptr;  // [num_samples], indices into the T tokens
  SampledTokens sampled;                        // with null pointers where that is every token

  // Decoding rows whose tables begin with the same blocks, where the host looked for them: what a
  // backend may use to read those blocks once. Run r says that the `count` rows from shared_rows
  // [first] on have the same blocks at positions [begin, end), multiples of kSharedPositions, all
  // before each row's own token. A row's runs follow one another from position 0 on.
  int num_shared_runs = 0;                      // N; runs of no rows may pad it
  const std::int32_t* shared_runs = nullptr;    // [N][4]: first, count, begin, end
  const std::int32_t* shared_rows = nullptr;    // [B], each row at most once
  const std::int32_t* shared_of_row = nullptr;  // [B], where row b's last run ends; 0: it has none
};
inline constexpr int kSharedPositions = 256;

// The batch of the sampled tokens alone, where they are not all.
inline Batch only_sampled(Batch batch) {
  batch.num_tokens = batch.sampled.num_tokens;
  batch.most_tokens = 0;
  batch.tokens = nullptr;
  batch.positions = batch.sampled.positions;
  batch.row_of_token = batch.sampled.row_of_token;
  batch.row_begin = batch.sampled.row_begin;
  batch.sample_tokens = batch.sampled.sample_tokens;
  batch.sampled = SampledTokens();
  return batch;
}

// K and V of one layer on this rank; base pointers into the arena. The layout inside a block is the
// backend's own; sizes come from Ops::kv_block_bytes.
struct KvLayer {
  std::byte* data = nullptr;
  std::size_t block_bytes = 0;  // from one block of the layer to the next
  DType dtype = DType::kF32;
  int num_kv_heads = 0;  // local
  int head_dim = 0;
  int block_size = 16;
};

// An arena, all layers: [num_blocks][block bytes].
struct KvBlocks {
  std::byte* data = nullptr;
  std::size_t block_bytes = 0;
};

struct AttentionSpec {
  int num_heads = 0;     // local query heads
  int num_kv_heads = 0;  // local KV heads
  int head_dim = 0;
  int first_head = 0;     // global index of local query head 0
  int first_kv_head = 0;  // global index of local KV head 0
  int group_heads = 1;    // query heads per KV head, of the whole model
  float scale = 1.0f;     // applied to q . k
  int window = 0;         // a query at position p sees keys in (p - window, p]; 0: all up to p
  float soft_cap = 0.0f;  // a scaled score s becomes soft_cap * tanh(s / soft_cap); 0: stays s

  // local KV head that local query head h reads
  int kv_head_of(int h) const { return (first_head + h) / group_heads - first_kv_head; }
};

}  // namespace quire
