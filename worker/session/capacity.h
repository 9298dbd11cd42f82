// How many KV blocks this rank offers. The coordinator takes the minimum over ranks.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/config.h"

namespace quire {

struct Capacity {
  std::int64_t blocks = 0;
  std::string reason;  // for the log: what was taken, and why so much
};

struct CapacityInputs {
  std::int64_t kv_cache_memory_bytes = 0;  // per rank; 0 = choose
  std::size_t block_bytes = 0;             // of one block over all layers
  int block_size = 16;
  int max_num_seqs = 0;
  int max_model_len = 0;
  std::int64_t free_bytes = 0;  // this rank's part; 0 = unknown
  double share = 0.25;          // of it, for a cache of no stated size
};

// --kv-cache-memory-bytes as given, else enough for max_num_seqs sequences of
// min(max_model_len, 2048) tokens, but at most `share` of the free memory. OutOfRange when not even
// one block fits, or more is asked for than is free.
absl::StatusOr<Capacity> choose_capacity(const CapacityInputs& inputs);

}  // namespace quire
