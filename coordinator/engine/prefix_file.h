// Where the coordinator keeps the index of the prefixes that lie in the workers' offload stores
// while nobody runs: one file beside theirs. It is good for one start: the stores change from the
// first step on, and workers say by the id whether they still hold what it describes.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

struct SavedPrefixes {
  std::uint64_t id = 0;  // 0: nothing
  std::string index;     // Engine::save_prefixes()
};

// `folder` is --kv-offload-path. A missing file is nothing; one that cannot be read is an error.
absl::StatusOr<SavedPrefixes> read_prefix_file(const std::string& folder, std::uint64_t model_hash);
// Whole or not at all.
absl::Status write_prefix_file(const std::string& folder, std::uint64_t model_hash,
                               const SavedPrefixes& saved);

}  // namespace quire
