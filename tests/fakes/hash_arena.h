// The KV memory of the fake worker: what each cell stands for, how many table entries hold each
// block, and the offload store. HashWorker owns one; it dies with the worker.
// Invariant: refs(b) is the number of table entries that name b.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/step.h"

namespace quire::test {

struct HashCell {
  TokenId token = -1;  // -1: nothing was ever stored
  int position = -1;
  int kv_group = -1;
  std::uint64_t domain = 0;  // whose prompts may be read here; see HashWorkerConfig

  bool operator==(const HashCell&) const = default;
  std::string text() const;
};

class HashArena {
 public:
  HashArena(int num_blocks, int block_size, int num_host_blocks);

  bool knows(BlockId block) const { return block >= 0 && block < num_blocks(); }
  int num_blocks() const { return num_blocks_; }

  HashCell& at(BlockId block, int offset) {
    return cells_[static_cast<std::size_t>(block * block_size_ + offset)];
  }

  // What an earlier group saved, if its offload store is a file.
  void inherit_store(HashArena* dead) { host_ = std::move(dead->host_); }

  // Each names the rule that it finds broken.
  absl::Status save(const BlockSwap& swap);
  absl::Status load(const BlockSwap& swap);
  absl::Status copy(const BlockCopy& copy);

 private:
  absl::Status check(const BlockSwap& swap) const;

  const int num_blocks_;
  const int block_size_;
  std::vector<HashCell> cells_;              // [block][S]
  std::vector<std::vector<HashCell>> host_;  // [host block][S], or empty: never saved
};

}  // namespace quire::test
