// Reference counts and the free stack of the block pool; see block_pool.h for the invariant.
#include "coordinator/cache/block_pool.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire {

void BlockPool::reset(int num_blocks) {
  QUIRE_CHECK_GE(num_blocks, 0);
  refs_.assign(static_cast<std::size_t>(num_blocks), -1);
  free_.resize(static_cast<std::size_t>(num_blocks));
  for (int i = 0; i < num_blocks; ++i) free_[static_cast<std::size_t>(i)] = num_blocks - 1 - i;
  num_cached_ = 0;
}

BlockId BlockPool::allocate() {
  QUIRE_CHECK(!free_.empty());
  const BlockId id = free_.back();
  free_.pop_back();
  refs_[static_cast<std::size_t>(id)] = 1;
  return id;
}

void BlockPool::add_ref(BlockId id) {
  int& refs = refs_[static_cast<std::size_t>(id)];
  QUIRE_CHECK_GE(refs, 0);
  if (refs++ == 0) --num_cached_;
}

int BlockPool::release(BlockId id) {
  int& refs = refs_[static_cast<std::size_t>(id)];
  QUIRE_CHECK_GT(refs, 0);
  if (--refs == 0) ++num_cached_;
  return refs;
}

void BlockPool::free(BlockId id) {
  int& refs = refs_[static_cast<std::size_t>(id)];
  QUIRE_CHECK_EQ(refs, 0);
  refs = -1;
  --num_cached_;
  free_.push_back(id);
}

absl::Status BlockPool::verify() const {
  std::vector<bool> listed(refs_.size(), false);
  for (const BlockId id : free_) {
    if (id < 0 || id >= num_total()) {
      return absl::InternalError(
          absl::StrCat("free list holds block ", id, " of a pool of ", num_total()));
    }
    const auto i = static_cast<std::size_t>(id);
    if (listed[i]) return absl::InternalError(absl::StrCat("block ", id, " is free twice"));
    listed[i] = true;
  }
  int cached = 0;
  for (std::size_t i = 0; i < refs_.size(); ++i) {
    cached += refs_[i] == 0 ? 1 : 0;
    if (refs_[i] < -1 || listed[i] != (refs_[i] == -1)) {
      return absl::InternalError(absl::StrCat("block ", i, " has ", refs_[i], " references and is ",
                                              listed[i] ? "" : "not ", "on the free list"));
    }
  }
  if (cached != num_cached_) {
    return absl::InternalError(
        absl::StrCat(cached, " blocks are cached, but ", num_cached_, " are counted"));
  }
  return absl::OkStatus();
}

}  // namespace quire
