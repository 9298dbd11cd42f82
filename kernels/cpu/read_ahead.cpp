#include "kernels/cpu/read_ahead.h"

#include <algorithm>

#include "kernels/cpu/attention_work.h"

namespace quire::cpu {
namespace {

// A thread fetches no more for a group: of 8 MB most was gone again when it was read, on two cores
// of several that have 32 MB of last level cache in common.
constexpr std::size_t kBytes = std::size_t{4} << 20;
// And no more than a byte in so many multiply-adds: a line in some 4 ns. Six rows that fetched at
// twice that rate lost more than they gained.
constexpr std::size_t kMultiplyAddsPerByte = 10;

}  // namespace

ReadAhead::ReadAhead(const Batch& batch, const KvLayer& kv, int window)
    : batch_(batch),
      kv_(kv),
      window_(window),
      piece_bytes_(kv_block_bytes(kv.dtype, kv.num_kv_heads, kv.head_dim, kv.block_size)) {}

Range ReadAhead::blocks(int row) const {
  const int first = batch_.positions[batch_.row_begin[row]];
  const int last = batch_.positions[batch_.row_begin[row + 1] - 1];
  return {first_seen(window_, first) / batch_.block_size, last / batch_.block_size + 1};
}

ReadAhead::Pieces ReadAhead::pieces(Range tokens, std::size_t begin, std::size_t end,
                                    std::size_t whole, std::size_t most_bytes) const {
  const Range rows = {first_row_from(batch_, tokens.begin), first_row_from(batch_, tokens.end)};
  std::size_t total = 0;
  for (int row = rows.begin; row < rows.end; ++row) {
    total += static_cast<std::size_t>(blocks(row).size());
  }
  total = std::min(total, most_bytes / std::max<std::size_t>(piece_bytes_, 1));
  const std::size_t from = total * begin / whole, to = total * end / whole;
  Pieces pieces;
  std::size_t i = 0;
  for (int row = rows.begin; row < rows.end && i < to; ++row) {
    const BlockId* table = batch_.block_tables + static_cast<std::size_t>(row) *
                                                     static_cast<std::size_t>(batch_.max_blocks);
    const Range own = blocks(row);
    for (int block = own.begin; block < own.end && i < to; ++block, ++i) {
      if (i < from) continue;
      pieces.push_back(kv_.data + static_cast<std::size_t>(table[block]) * kv_.block_bytes);
    }
  }
  return pieces;
}

ReadAhead::Pieces AheadPart::pieces(int num_tokens, Range tokens, int rows) const {
  const bool known = work != nullptr && work->read.has_value();
  if (!known || work->read->num_tokens() != num_tokens) return {};
  const std::size_t multiply_adds = work->whole * static_cast<std::size_t>(rows);
  return work->read->pieces(tokens, begin, end, work->whole,
                            std::min(kBytes, multiply_adds / kMultiplyAddsPerByte));
}

std::size_t AheadPart::piece_bytes() const {
  return work != nullptr && work->read.has_value() ? work->read->piece_bytes() : 0;
}

AheadPart take_part(const std::shared_ptr<AheadWork>& work, const Weight& weight) {
  const std::size_t begin = work->whole;
  work->whole += static_cast<std::size_t>(weight.rows) * static_cast<std::size_t>(weight.columns);
  return {work, begin, work->whole};
}

}  // namespace quire::cpu
