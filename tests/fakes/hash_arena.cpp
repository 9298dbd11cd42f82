// Saves, loads and copies move whole blocks, also the cells that are stale or were never stored to.
#include "tests/fakes/hash_arena.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire::test {

std::string HashCell::text() const {
  if (token < 0) return "nothing";
  return absl::StrCat("token ", token, " of position ", position, ", KV group ", kv_group,
                      ", domain ", domain);
}

HashArena::HashArena(int num_blocks, int block_size, int num_host_blocks)
    : num_blocks_(num_blocks),
      block_size_(block_size),
      cells_(static_cast<std::size_t>(num_blocks * block_size)),
      host_(static_cast<std::size_t>(num_host_blocks)) {}

absl::Status HashArena::check(const BlockSwap& swap) const {
  if (!knows(swap.block)) {
    return absl::InvalidArgumentError(absl::StrCat("swaps unknown block ", swap.block));
  }
  if (swap.host < 0 || static_cast<std::size_t>(swap.host) >= host_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("swaps unknown host block ", swap.host));
  }
  return absl::OkStatus();
}

absl::Status HashArena::save(const BlockSwap& swap) {
  QUIRE_RETURN_IF_ERROR(check(swap));
  const auto from = cells_.begin() + static_cast<std::ptrdiff_t>(swap.block * block_size_);
  host_[static_cast<std::size_t>(swap.host)].assign(from, from + block_size_);
  return absl::OkStatus();
}

absl::Status HashArena::load(const BlockSwap& swap) {
  QUIRE_RETURN_IF_ERROR(check(swap));
  const std::vector<HashCell>& host = host_[static_cast<std::size_t>(swap.host)];
  if (host.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("loads host block ", swap.host, ", which was never saved"));
  }
  for (int i = 0; i < block_size_; ++i) at(swap.block, i) = host[static_cast<std::size_t>(i)];
  return absl::OkStatus();
}

absl::Status HashArena::copy(const BlockCopy& copy) {
  if (!knows(copy.from) || !knows(copy.to)) {
    return absl::InvalidArgumentError(
        absl::StrCat("copies block ", copy.from, " to ", copy.to, ", but one is unknown"));
  }
  for (int i = 0; i < block_size_; ++i) {
    const HashCell& from = at(copy.from, i);  // in other groups' layers nothing moves
    at(copy.to, i) = from.kv_group == copy.kv_group ? from : HashCell();
  }
  return absl::OkStatus();
}

}  // namespace quire::test
