// The ids of all KV blocks of the worker group, with a reference count each. The engine's thread
// owns it; a block id means the same block on every rank.
//
// Invariant: a block is on the free list exactly when its count is zero, so free + used == total.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"

namespace quire {

class BlockPool {
 public:
  // Forgets everything and starts with `num_blocks` free blocks.
  void reset(int num_blocks);

  int num_total() const { return static_cast<int>(refs_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_used() const { return num_total() - num_free(); }

  BlockId allocate();          // one reference, the caller's; there must be a free block
  void add_ref(BlockId id);    // of a used block
  void release(BlockId id);    // the last release frees it
  int refs(BlockId id) const;  // 0 = free

  // Internal with the first contradiction found.
  absl::Status verify() const;

 private:
  std::vector<int> refs_;      // [block]
  std::vector<BlockId> free_;  // a stack: the block freed last is used first
};

}  // namespace quire
