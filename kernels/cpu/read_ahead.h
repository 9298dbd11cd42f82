// K and V of decoding rows come from memory and are used once: attention waits for them, while
// products of many rows compute and leave the memory idle. So the products before an attention
// fetch, a line now and then, what a thread's rows will read first, into its share of the last
// level of cache.
#pragma once

#include <cstddef>

#include "absl/container/inlined_vector.h"
#include "common/shard.h"
#include "kernels/batch.h"

namespace quire::cpu {

class ReadAhead {
 public:
  // For an attention that divides rows; `window` as in AttentionSpec.
  ReadAhead(const Batch& batch, const KvLayer& kv, int window);

  // Memory in pieces of equal size: one block's K and V, all heads.
  using Pieces = absl::InlinedVector<const std::byte*, 128>;
  std::size_t piece_bytes() const { return piece_bytes_; }
  // What a thread that does these rows fetches during the part [begin, end) of `whole` of the
  // products. While the step runs: the batch's arrays are read.
  Pieces pieces(Range rows, std::size_t begin, std::size_t end, std::size_t whole) const;

 private:
  Range blocks(int row) const;  // of its table

  const Batch batch_;
  const KvLayer kv_;
  const int window_;
  const std::size_t piece_bytes_;
};

}  // namespace quire::cpu
