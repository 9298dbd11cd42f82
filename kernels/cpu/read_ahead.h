// K and V of decoding rows come from memory and are used once: attention waits for them, while
// products of many rows compute and leave the memory idle. So threads go from an attention through
// the products after it with one group of their rows after the other (share.h), and the products of
// one group fetch, a line now and then, what the next one will read.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "absl/container/inlined_vector.h"
#include "common/shard.h"
#include "kernels/batch.h"
#include "kernels/weight.h"

namespace quire::cpu {

class ReadAhead {
 public:
  // For an attention that divides rows; `window` as in AttentionSpec.
  ReadAhead(const Batch& batch, const KvLayer& kv, int window);

  // Memory in pieces of equal size: one block's K and V, all heads.
  using Pieces = absl::InlinedVector<const std::byte*, 128>;
  std::size_t piece_bytes() const { return piece_bytes_; }
  int num_tokens() const { return batch_.num_tokens; }
  // What an attention with these tokens, all of their sequences, reads first: the part [begin, end)
  // of `whole` of it, which is no more than most_bytes. While the step runs: the batch's arrays are
  // read.
  Pieces pieces(Range tokens, std::size_t begin, std::size_t end, std::size_t whole,
                std::size_t most_bytes) const;

 private:
  Range blocks(int row) const;  // of its table

  const Batch batch_;
  const KvLayer kv_;
  const int window_;
  const std::size_t piece_bytes_;
};

// Products that share the fetching for an attention, as their list is made: each takes as much as
// it has weights.
struct AheadWork {
  std::optional<ReadAhead> read;  // none: the attention is not of that kind, or there is none
  std::size_t whole = 0;          // weights of all
};

// The part of one of them: [begin, end) of the work.
struct AheadPart {
  std::shared_ptr<const AheadWork> work;
  std::size_t begin = 0;
  std::size_t end = 0;

  // For these of an attention with num_tokens, while the product of `rows` is computed.
  ReadAhead::Pieces pieces(int num_tokens, Range tokens, int rows) const;
  std::size_t piece_bytes() const;
};
AheadPart take_part(const std::shared_ptr<AheadWork>& work, const Weight& weight);

}  // namespace quire::cpu
