// The ids of all KV blocks of the worker group, with a reference count each. The engine's thread
// owns it; a block id means the same block on every rank.
//
// Invariant: a block is free, used (some table holds it) or cached (nobody does, but its content is
// kept for whoever has the same prefix): free + used + cached == total.
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
  int num_cached() const { return num_cached_; }
  int num_used() const { return num_total() - num_free() - num_cached_; }

  BlockId allocate();        // one reference, the caller's; there must be a free block
  void add_ref(BlockId id);  // of a used or cached block
  // Returns the references left. With the last one the block is cached: free() makes it free.
  int release(BlockId id);
  void free(BlockId id);  // a cached block

  int refs(BlockId id) const { return refs_[static_cast<std::size_t>(id)]; }  // -1: free

  // Internal with the first contradiction found.
  absl::Status verify() const;

 private:
  std::vector<int> refs_;      // [block]
  std::vector<BlockId> free_;  // a stack: the block freed last is used first
  int num_cached_ = 0;
};

}  // namespace quire
