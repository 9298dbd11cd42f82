#include "kernels/cpu/read_ahead.h"

#include <algorithm>

#include "kernels/cpu/attention_work.h"

namespace quire::cpu {
namespace {

// A thread fetches no more: of 8 MB most was gone again when it was read, on two cores of several
// that have 32 MB of last level cache in common.
constexpr std::size_t kBytes = std::size_t{3} << 20;

}  // namespace

ReadAhead::ReadAhead(const Batch& batch, const KvLayer& kv, int window)
    : batch_(batch),
      kv_(kv),
      window_(window),
      piece_bytes_(kv_block_bytes(kv.dtype, kv.num_kv_heads, kv.head_dim, kv.block_size)) {}

Range ReadAhead::blocks(int row) const {
  const int position = batch_.positions[row];
  return {first_seen(window_, position) / batch_.block_size, position / batch_.block_size + 1};
}

ReadAhead::Pieces ReadAhead::pieces(Range rows, std::size_t begin, std::size_t end,
                                    std::size_t whole) const {
  std::size_t total = 0;
  for (int row = rows.begin; row < rows.end; ++row) {
    total += static_cast<std::size_t>(blocks(row).size());
  }
  total = std::min(total, kBytes / std::max<std::size_t>(piece_bytes_, 1));
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

}  // namespace quire::cpu
