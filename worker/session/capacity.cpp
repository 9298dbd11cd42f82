// The default size of the KV cache.
#include "worker/session/capacity.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {
namespace {

constexpr int kUsualTokens = 2048;  // of one sequence, when nothing else is said

std::string megabytes(std::int64_t bytes) {
  return absl::StrFormat("%.0f MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace

absl::StatusOr<Capacity> choose_capacity(const CapacityInputs& in) {
  const auto block = static_cast<std::int64_t>(in.block_bytes);
  Capacity capacity;
  if (in.kv_cache_memory_bytes > 0) {
    capacity.blocks = in.kv_cache_memory_bytes / block;
    capacity.reason = "--kv-cache-memory-bytes";
    if (in.free_bytes > 0 && in.kv_cache_memory_bytes > in.free_bytes) {
      return absl::OutOfRangeError(
          absl::StrCat("--kv-cache-memory-bytes asks for ", megabytes(in.kv_cache_memory_bytes),
                       " on every rank and the free memory has ", megabytes(in.free_bytes),
                       " for each; ask for less"));
    }
  } else {
    const int tokens = std::min(in.max_model_len, kUsualTokens);
    const std::int64_t per_sequence = (tokens + in.block_size - 1) / in.block_size;
    const std::int64_t longest = (in.max_model_len + in.block_size - 1) / in.block_size;
    capacity.blocks = std::max(in.max_num_seqs * per_sequence, longest);
    capacity.reason = absl::StrCat(in.max_num_seqs, " sequences of ", tokens, " tokens");
    const auto share = static_cast<std::int64_t>(static_cast<double>(in.free_bytes) * in.share);
    if (in.free_bytes > 0 && share / block < capacity.blocks) {
      capacity.blocks = share / block;
      capacity.reason = absl::StrFormat("%.0f %% of this rank's %s of free memory", in.share * 100,
                                        megabytes(in.free_bytes));
    }
  }
  if (capacity.blocks < 1) {
    return absl::OutOfRangeError(absl::StrCat("there is no room for a single KV block of ", block,
                                              " bytes (", capacity.reason,
                                              "); raise --kv-cache-memory-bytes"));
  }
  capacity.reason = absl::StrCat(capacity.blocks, " blocks of ", in.block_size, " tokens, ",
                                 megabytes(capacity.blocks * block), " (", capacity.reason, ")");
  return capacity;
}

}  // namespace quire
