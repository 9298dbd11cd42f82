// Checks every invariant of kv_manager.h.
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/cache/kv_manager.h"

namespace quire {

absl::Status KvManager::verify(absl::Span<const BlockTable* const> tables) const {
  QUIRE_RETURN_IF_ERROR(pool_.verify());
  std::vector<int> held(static_cast<std::size_t>(pool_.num_total()), 0);
  for (const BlockTable* table : tables) {
    for (const BlockId id : table->blocks) {
      if (id < 0 || id >= pool_.num_total()) {
        return absl::InternalError(
            absl::StrCat("a table names block ", id, " of ", pool_.num_total()));
      }
      ++held[static_cast<std::size_t>(id)];
    }
    NodeId node = table->tail;
    for (int i = table->num_offered; i-- > 0; node = index_.at(node).parent) {
      if (index_.at(node).block != table->blocks[static_cast<std::size_t>(i)]) {
        return absl::InternalError(absl::StrCat("entry ", i, " of a table is block ",
                                                table->blocks[static_cast<std::size_t>(i)],
                                                ", but its node has ", index_.at(node).block));
      }
    }
  }
  for (const BlockId pin : pins_) ++held[static_cast<std::size_t>(pin)];
  int cached = 0;
  for (BlockId id = 0; id < pool_.num_total(); ++id) {
    const int refs = pool_.refs(id);
    const NodeId node = node_of_block_[static_cast<std::size_t>(id)];
    if (held[static_cast<std::size_t>(id)] != std::max(0, refs)) {
      return absl::InternalError(absl::StrCat("block ", id, " has ", refs,
                                              " references, but tables hold ",
                                              held[static_cast<std::size_t>(id)]));
    }
    if (refs <= 0 && (refs == 0) != (node != kNoNode)) {
      return absl::InternalError(absl::StrCat("block ", id, " with ", refs, " references is node ",
                                              node, " of the index"));
    }
    if (refs == 0 && !unreferenced_.contains(node)) {
      return absl::InternalError(absl::StrCat("cached block ", id, " cannot be evicted"));
    }
    cached += refs == 0 ? 1 : 0;
  }
  if (cached != unreferenced_.size()) {
    return absl::InternalError(
        absl::StrCat(cached, " blocks are cached, but ", unreferenced_.size(), " can be evicted"));
  }
  return verify_index();
}

absl::Status KvManager::verify_index() const {
  std::vector<NodeId> open;
  for (const auto& [scope, root] : index_.roots()) open.push_back(root);
  int nodes = 0, stored = 0;
  while (!open.empty()) {
    const NodeId parent = open.back();
    open.pop_back();
    const PrefixNode& above = index_.at(parent);
    for (NodeId child = above.first_child; child != kNoNode;
         child = index_.at(child).older_sibling) {
      const PrefixNode& node = index_.at(child);
      ++nodes;
      stored += node.host >= 0 ? 1 : 0;
      if (node.parent != parent || !node.in_use || (node.block < 0 && node.host < 0) ||
          (node.host >= 0) != stored_.contains(child) ||
          index_.find_child(parent, index_.tokens(child)) != child) {
        return absl::InternalError(absl::StrCat("node ", child, " of the index is out of place"));
      }
      if (node.block >= 0 && node_of_block_[static_cast<std::size_t>(node.block)] != child) {
        return absl::InternalError(absl::StrCat("block ", node.block, " has lost node ", child));
      }
      const bool held = node.block >= 0 && pool_.refs(node.block) > 0;
      const bool above_held =
          above.parent == kNoNode || (above.block >= 0 && pool_.refs(above.block) > 0);
      if (held && !above_held) {
        return absl::InternalError(
            absl::StrCat("block ", node.block, " is held, but not what comes before it"));
      }
      open.push_back(child);
    }
  }
  if (nodes != index_.num_nodes()) return absl::InternalError("the index has lost nodes");
  if (stored + static_cast<int>(free_hosts_.size()) != num_host_blocks_) {
    return absl::InternalError(absl::StrCat(stored, " blocks are stored and ", free_hosts_.size(),
                                            " places free, of ", num_host_blocks_));
  }
  return absl::OkStatus();
}

}  // namespace quire
