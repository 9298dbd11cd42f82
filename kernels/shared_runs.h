// Finds the rows of a step whose block tables begin with the same blocks: what Batch::shared_runs
// says. Host work between two steps: each split of a row is looked at once, and where rows part
// they are sorted by the block at which they do.
//
// Only rows of one token count. Runs nest (all rows share a system prompt, some of them a
// conversation), so that a row belongs to one run for each stretch of its prefix.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/batch.h"

namespace quire {

class SharedRuns {
 public:
  // `batch` has host pointers: row_begin, context and block_tables are read.
  void find(const Batch& batch);

  int count() const { return static_cast<int>(runs_.size() / 4); }     // at most B - 1
  const std::vector<std::int32_t>& runs() const { return runs_; }      // [count][4]
  const std::vector<std::int32_t>& rows() const { return rows_; }      // at most B
  const std::vector<std::int32_t>& of_row() const { return of_row_; }  // [B]

 private:
  const BlockId* split_of(int row, int split) const;
  // The last block of a split; -1: the row has no such whole split before its token.
  BlockId key(int row, int split) const;
  bool same(int row, int other, int split) const;
  // rows_[begin, end) have the same blocks before `split`.
  void part(int begin, int end, int split);
  // ... and the same key at it.
  void extend(int begin, int end, int split);

  const Batch* batch_ = nullptr;
  int split_blocks_ = 1;  // blocks of kSharedPositions positions
  std::vector<std::int32_t> runs_, rows_, of_row_;
};

}  // namespace quire
