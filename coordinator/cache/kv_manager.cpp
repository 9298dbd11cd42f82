// Tables and the prefix cache; see kv_manager.h for the invariants. The offload store's part is in
// kv_offload.cpp, the checks are in kv_verify.cpp.
#include "coordinator/cache/kv_manager.h"

#include <algorithm>

#include "common/check.h"

namespace quire {
namespace {

constexpr int kLeastPartialTokens = 2;  // fewer are computed as fast as copied

}  // namespace

KvManager::KvManager(Options options)
    : options_(options), index_(options.block_size, options.hash_key) {
  QUIRE_CHECK_GT(options.block_size, 0);
}

void KvManager::reset(int num_blocks, int num_host_blocks) {
  take_moves();
  QUIRE_CHECK_EQ(pool_.num_used(), 0);
  pool_.reset(num_blocks);
  index_.clear();
  node_of_block_.assign(static_cast<std::size_t>(num_blocks), kNoNode);
  unreferenced_.clear();
  stored_.clear();
  num_host_blocks_ = options_.prefix_caching ? num_host_blocks : 0;
  free_hosts_.clear();
  for (int i = num_host_blocks_ - 1; i >= 0; --i) free_hosts_.push_back(i);
}

PrefixHit KvManager::match(absl::string_view scope, absl::Span<const TokenId> tokens,
                           int most_tokens, bool from_host) const {
  PrefixHit hit;
  if (!options_.prefix_caching) return hit;
  NodeId node = index_.find_root(scope);
  if (node == kNoNode) return hit;
  const auto size = static_cast<std::size_t>(options_.block_size);
  const std::size_t most = std::min(tokens.size(), static_cast<std::size_t>(most_tokens));
  std::size_t end = 0;
  for (; end + size <= most; end += size) {
    const NodeId child = index_.find_child(node, tokens.subspan(end, size));
    if (child == kNoNode || (index_.at(child).block < 0 && !from_host)) break;
    const BlockId block = index_.at(child).block;
    hit.num_loads += block < 0 ? 1 : 0;
    hit.num_taken += block < 0 || pool_.refs(block) == 0 ? 1 : 0;
    hit.nodes.push_back(node = child);
  }
  const auto rest = index_.best_partial(node, tokens.subspan(end, std::min(size, most - end)));
  if (rest.num_tokens >= kLeastPartialTokens) {
    hit.partial = rest.node;
    // The copy, and its source for as long as the plan is made.
    hit.num_taken += pool_.refs(index_.at(rest.node).block) == 0 ? 2 : 1;
    end += static_cast<std::size_t>(rest.num_tokens);
  }
  hit.num_tokens = static_cast<int>(end);
  return hit;
}

void KvManager::forget_partial(PrefixHit* hit) const {
  QUIRE_CHECK_NE(hit->partial, kNoNode);
  hit->num_taken -= pool_.refs(index_.at(hit->partial).block) == 0 ? 2 : 1;
  hit->num_tokens = static_cast<int>(hit->nodes.size()) * options_.block_size;
  hit->partial = kNoNode;
}

void KvManager::attach(const PrefixHit& hit, int priority, BlockTable* table) {
  QUIRE_CHECK(table->blocks.empty());
  QUIRE_CHECK_LE(hit.num_taken, num_available());
  // First everything is held, so that making room for the rest takes nothing of the hit.
  for (auto node = hit.nodes.rbegin(); node != hit.nodes.rend(); ++node) {
    const PrefixNode& known = index_.at(*node);
    if (known.block >= 0) acquire(known.block);
    if (known.host < 0) continue;
    loading_hosts_.insert(known.host);
    touch_stored(*node);
  }
  BlockId source = -1;
  if (hit.partial != kNoNode) {
    source = index_.at(hit.partial).block;
    acquire(source);
    pins_.push_back(source);
  }
  for (const NodeId node : hit.nodes) {
    if (index_.at(node).block < 0) {
      const BlockId block = allocate();
      index_.at(node).block = block;
      node_of_block_[static_cast<std::size_t>(block)] = node;
      moves_.loads.push_back({block, index_.at(node).host});
    }
    index_.at(node).priority = std::min(index_.at(node).priority, priority);
    index_.at(node).wanted = true;
    table->blocks.push_back(index_.at(node).block);
  }
  table->num_offered = table->num_blocks();
  if (!hit.nodes.empty()) table->tail = hit.nodes.back();
  if (source < 0) return;
  table->blocks.push_back(allocate());
  moves_.copies.push_back({0, source, table->blocks.back()});
}

void KvManager::offer(absl::string_view scope, absl::Span<const TokenId> tokens, int num_computed,
                      int priority, BlockTable* table) {
  if (!options_.prefix_caching || !table->offers) return;
  const auto size = static_cast<std::size_t>(options_.block_size);
  const int full = std::min(num_computed / options_.block_size, table->num_blocks());
  while (table->num_offered < full) {
    const auto i = static_cast<std::size_t>(table->num_offered);
    const NodeId parent = table->num_offered == 0 ? index_.root(scope) : table->tail;
    const absl::Span<const TokenId> content = tokens.subspan(i * size, size);
    BlockId& block = table->blocks[i];
    NodeId node = index_.find_child(parent, content);
    if (node == kNoNode) {
      node = index_.insert(parent, content);
      table->offers = node != kNoNode;
      if (!table->offers) return;
      index_.at(node).priority = priority;
    }
    PrefixNode& known = index_.at(node);
    known.priority = std::min(known.priority, priority);
    if (known.block < 0) {
      known.block = block;
      node_of_block_[static_cast<std::size_t>(block)] = node;
    } else if (known.block != block) {
      // Somebody else computed the same: hold that block, and drop ours.
      acquire(known.block);
      give_back(block);
      block = known.block;
      table->num_right = std::min(table->num_right, static_cast<int>(i));
    }
    table->tail = node;
    ++table->num_offered;
  }
}

bool KvManager::is_shared(BlockId block) const {
  const auto pins = std::count(pins_.begin(), pins_.end(), block);
  return pool_.refs(block) - static_cast<int>(pins) > 1;
}

bool KvManager::copies_on_write(int num_computed, const BlockTable& table) const {
  if (!table.forked) return false;
  const auto index = static_cast<std::size_t>(num_computed / options_.block_size);
  return index < table.blocks.size() && is_shared(table.blocks[index]);
}

int KvManager::missing_blocks(int num_computed, int num_tokens, const BlockTable& table) const {
  return std::max(0, blocks_for(num_tokens) - table.num_blocks()) +
         (copies_on_write(num_computed, table) ? 1 : 0);
}

bool KvManager::reserve(int num_computed, int num_tokens, BlockTable* table) {
  int missing = std::max(0, blocks_for(num_tokens) - table->num_blocks());
  const bool copies = num_tokens > num_computed && copies_on_write(num_computed, *table);
  if (missing + (copies ? 1 : 0) > num_available()) return false;
  if (copies) {
    const int index = num_computed / options_.block_size;
    QUIRE_CHECK_GE(index, table->num_offered);
    BlockId& block = table->blocks[static_cast<std::size_t>(index)];
    const BlockId copy = allocate();
    moves_.copies.push_back({0, block, copy});
    pins_.push_back(block);  // takes over our reference
    block = copy;
    table->num_right = std::min(table->num_right, index);
  }
  if (num_tokens > num_computed) table->forked = false;
  for (; missing > 0; --missing) table->blocks.push_back(allocate());
  return true;
}

void KvManager::fork(BlockTable* parent, BlockTable* child) {
  QUIRE_CHECK(child->blocks.empty());
  parent->forked = true;
  *child = *parent;
  for (const BlockId block : child->blocks) pool_.add_ref(block);
}

void KvManager::keep(const BlockTable& table) {
  NodeId node = table.tail;
  for (int i = table.num_offered; i > 0; --i, node = index_.at(node).parent) {
    index_.at(node).wanted = true;
  }
}

void KvManager::release(BlockTable* table) {
  // From the end, so that a leaf is left before what is above it.
  for (auto block = table->blocks.rbegin(); block != table->blocks.rend(); ++block) {
    give_back(*block);
  }
  *table = BlockTable();
}

BlockMoves KvManager::take_moves() {
  for (const BlockId block : pins_) give_back(block);
  pins_.clear();
  loading_hosts_.clear();
  return std::exchange(moves_, {});
}

void KvManager::acquire(BlockId block) {
  if (pool_.refs(block) == 0) {
    unreferenced_.remove(node_of_block_[static_cast<std::size_t>(block)]);
  }
  pool_.add_ref(block);
}

void KvManager::give_back(BlockId block) {
  if (pool_.release(block) > 0) return;
  const NodeId node = node_of_block_[static_cast<std::size_t>(block)];
  if (node == kNoNode) {
    pool_.free(block);
  } else {
    unreferenced_.push(node, index_.at(node).priority);
  }
}

BlockId KvManager::allocate() {
  if (pool_.num_free() == 0) evict();
  return pool_.allocate();
}

// The leaf that was left first gives up its block.
void KvManager::evict() {
  const NodeId node = unreferenced_.first();
  QUIRE_CHECK_NE(node, kNoNode);
  const BlockId block = index_.at(node).block;
  if (index_.at(node).host < 0 && (saving_all_ || index_.at(node).wanted)) save(node, block);
  unreferenced_.remove(node);
  index_.at(node).block = -1;
  node_of_block_[static_cast<std::size_t>(block)] = kNoNode;
  pool_.free(block);
  // A parent leaves the device after its children, and must leave the store after them, too.
  if (index_.at(node).host >= 0) return touch_stored(node);
  ++moves_.num_dropped;
  drop(node);
}

void KvManager::drop(NodeId node) {
  while (index_.at(node).first_child != kNoNode) drop(index_.at(node).first_child);
  const PrefixNode gone = index_.at(node);
  if (gone.block >= 0) {
    unreferenced_.remove(node);
    node_of_block_[static_cast<std::size_t>(gone.block)] = kNoNode;
    pool_.free(gone.block);
  }
  if (gone.host >= 0) {
    std::erase_if(moves_.saves, [&](const BlockSwap& save) { return save.host == gone.host; });
    stored_.remove(node);
    free_hosts_.push_back(gone.host);
  }
  index_.remove(node);
}

}  // namespace quire
