// Block tables: which blocks hold the KV of which sequence. A sequence owns one table per KV group
// (layers of equal KvSpec and retention; one group today) and the manager fills and empties them
// from one pool. The engine's thread owns it.
//
// Invariant: the tables of all sequences hold exactly the references that the pool counts.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "coordinator/cache/block_pool.h"

namespace quire {

using BlockLists = std::vector<std::vector<BlockId>>;  // [KV group][block]

// The block tables of one sequence: position p lives in blocks[group][p / block_size].
struct BlockTables {
  BlockLists blocks;
  int num_blocks() const { return blocks.empty() ? 0 : static_cast<int>(blocks[0].size()); }
};

class KvManager {
 public:
  KvManager(int num_groups, int block_size);

  // A new worker group: every table must have been released before.
  void reset(int num_blocks);

  // Makes `tables` cover `num_tokens` positions and reports the blocks that are new, one list per
  // group. All or nothing: false, with nothing changed, if the pool has no room.
  bool reserve(int num_tokens, BlockTables* tables, BlockLists* new_blocks);
  void release(BlockTables* tables);

  // Blocks that one group needs for so many positions; all groups together need it in full.
  int blocks_for(int num_tokens) const { return (num_tokens + block_size_ - 1) / block_size_; }
  int total_for(int num_tokens) const { return num_groups_ * blocks_for(num_tokens); }
  // The positions that `tables` could cover if it took every free block.
  int reachable_tokens(const BlockTables& tables) const;

  int num_total() const { return pool_.num_total(); }
  int num_free() const { return pool_.num_free(); }
  int num_used() const { return pool_.num_used(); }
  int block_size() const { return block_size_; }

  // Internal unless free + used == total and the counts match `tables`, which must be all there
  // are.
  absl::Status verify(absl::Span<const BlockTables* const> tables) const;

 private:
  int num_groups_;
  int block_size_;
  BlockPool pool_;
};

}  // namespace quire
