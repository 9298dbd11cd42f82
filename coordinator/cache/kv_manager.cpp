// Fills and empties block tables from the pool; see kv_manager.h for the invariant.
#include "coordinator/cache/kv_manager.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire {

KvManager::KvManager(int num_groups, int block_size)
    : num_groups_(num_groups), block_size_(block_size) {
  QUIRE_CHECK_GT(num_groups, 0);
  QUIRE_CHECK_GT(block_size, 0);
}

void KvManager::reset(int num_blocks) {
  QUIRE_CHECK_EQ(pool_.num_used(), 0);
  pool_.reset(num_blocks);
}

bool KvManager::reserve(int num_tokens, BlockTables* tables, BlockLists* new_blocks) {
  const auto groups = static_cast<std::size_t>(num_groups_);
  tables->blocks.resize(groups);
  new_blocks->assign(groups, {});
  const int missing = blocks_for(num_tokens) - tables->num_blocks();
  if (missing <= 0) return true;
  if (missing * num_groups_ > pool_.num_free()) return false;
  for (std::size_t g = 0; g < groups; ++g) {
    for (int i = 0; i < missing; ++i) (*new_blocks)[g].push_back(pool_.allocate());
    auto& table = tables->blocks[g];
    table.insert(table.end(), (*new_blocks)[g].begin(), (*new_blocks)[g].end());
  }
  return true;
}

void KvManager::release(BlockTables* tables) {
  for (auto& table : tables->blocks) {
    for (const BlockId id : table) pool_.release(id);
    table.clear();
  }
}

int KvManager::reachable_tokens(const BlockTables& tables) const {
  return (tables.num_blocks() + pool_.num_free() / num_groups_) * block_size_;
}

absl::Status KvManager::verify(absl::Span<const BlockTables* const> tables) const {
  if (absl::Status status = pool_.verify(); !status.ok()) return status;
  std::vector<int> held(static_cast<std::size_t>(pool_.num_total()), 0);
  for (const BlockTables* table : tables) {
    for (const auto& group : table->blocks) {
      if (static_cast<int>(group.size()) != table->num_blocks()) {
        return absl::InternalError("the groups of one sequence have tables of unequal length");
      }
      for (const BlockId id : group) {
        if (id < 0 || id >= pool_.num_total()) {
          return absl::InternalError(
              absl::StrCat("a table names block ", id, " of ", pool_.num_total()));
        }
        ++held[static_cast<std::size_t>(id)];
      }
    }
  }
  for (BlockId id = 0; id < pool_.num_total(); ++id) {
    if (held[static_cast<std::size_t>(id)] != pool_.refs(id)) {
      return absl::InternalError(absl::StrCat("block ", id, " has ", pool_.refs(id),
                                              " references, but tables hold ",
                                              held[static_cast<std::size_t>(id)]));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire
