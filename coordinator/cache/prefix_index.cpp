// Nodes in one array, children in lists, buckets by hash.
#include "coordinator/cache/prefix_index.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/hash.h"

namespace quire {
namespace {

constexpr int kMostInBucket = 4;   // bounds what chosen collisions can cost
constexpr int kMostChildren = 16;  // looked at for a partial match

}  // namespace

PrefixIndex::PrefixIndex(int block_size, std::uint64_t key)
    : block_size_(static_cast<std::size_t>(block_size)), key_(key) {}

void PrefixIndex::clear() {
  nodes_.clear();
  tokens_.clear();
  unused_.clear();
  buckets_.clear();
  roots_.clear();
  scopes_.clear();
  num_nodes_ = 0;
}

absl::Span<const TokenId> PrefixIndex::tokens(NodeId node) const {
  return absl::MakeConstSpan(tokens_).subspan(static_cast<std::size_t>(node) * block_size_,
                                              block_size_);
}

std::uint64_t PrefixIndex::hash_of(NodeId parent, absl::Span<const TokenId> tokens) const {
  const auto* bytes = reinterpret_cast<const char*>(tokens.data());
  return hash64(key_ + static_cast<std::uint64_t>(parent),
                absl::string_view(bytes, tokens.size() * sizeof(TokenId)));
}

NodeId PrefixIndex::find_root(absl::string_view scope) const {
  const auto found = roots_.find(scope);
  return found == roots_.end() ? kNoNode : found->second;
}

NodeId PrefixIndex::root(absl::string_view scope) {
  if (const NodeId found = find_root(scope); found != kNoNode) return found;
  const NodeId made = make_node(kNoNode);
  roots_.emplace(scope, made);
  scopes_.emplace(made, scope);
  return made;
}

NodeId PrefixIndex::find_child(NodeId parent, absl::Span<const TokenId> tokens) const {
  const PrefixNode& above = at(parent);
  const NodeId direct = above.direct_child;
  if (direct != kNoNode && this->tokens(direct) == tokens) return direct;
  const NodeId newest = above.first_child;
  if (newest == kNoNode || (newest == direct && at(newest).older_sibling == kNoNode)) {
    return kNoNode;
  }
  const auto bucket = buckets_.find(hash_of(parent, tokens));
  if (bucket == buckets_.end()) return kNoNode;
  for (NodeId node = bucket->second; node != kNoNode; node = at(node).next_in_bucket) {
    if (at(node).parent == parent && this->tokens(node) == tokens) return node;
  }
  return kNoNode;
}

NodeId PrefixIndex::make_node(NodeId parent) {
  NodeId node;
  if (unused_.empty()) {
    node = static_cast<NodeId>(nodes_.size());
    nodes_.emplace_back();
    tokens_.resize(tokens_.size() + block_size_);
  } else {
    node = unused_.back();
    unused_.pop_back();
    at(node) = PrefixNode();
  }
  at(node).parent = parent;
  at(node).in_use = true;
  if (parent == kNoNode) return node;
  const NodeId sibling = at(parent).first_child;
  at(node).older_sibling = sibling;
  if (sibling != kNoNode) at(sibling).newer_sibling = node;
  at(parent).first_child = node;
  return node;
}

NodeId PrefixIndex::insert(NodeId parent, absl::Span<const TokenId> tokens) {
  NodeId node;
  if (at(parent).direct_child == kNoNode) {
    node = make_node(parent);
    at(parent).direct_child = node;
  } else {
    const std::uint64_t hash = hash_of(parent, tokens);
    const auto bucket = buckets_.try_emplace(hash, kNoNode).first;
    int count = 0;
    for (NodeId other = bucket->second; other != kNoNode; other = at(other).next_in_bucket) ++count;
    if (count >= kMostInBucket) return kNoNode;
    node = make_node(parent);
    at(node).hash = hash;
    at(node).next_in_bucket = std::exchange(bucket->second, node);
  }
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() +
                static_cast<std::ptrdiff_t>(node) * static_cast<std::ptrdiff_t>(block_size_));
  ++num_nodes_;
  return node;
}

// From where find_child() finds it.
void PrefixIndex::unlink(NodeId node) {
  if (NodeId& direct = at(at(node).parent).direct_child; direct == node) {
    direct = kNoNode;
    return;
  }
  const auto bucket = buckets_.find(at(node).hash);
  if (bucket->second == node) {
    if (at(node).next_in_bucket == kNoNode) {
      buckets_.erase(bucket);
    } else {
      bucket->second = at(node).next_in_bucket;
    }
    return;
  }
  NodeId before = bucket->second;
  while (at(before).next_in_bucket != node) before = at(before).next_in_bucket;
  at(before).next_in_bucket = at(node).next_in_bucket;
}

void PrefixIndex::remove(NodeId node) {
  QUIRE_CHECK(at(node).in_use);
  QUIRE_CHECK_EQ(at(node).first_child, kNoNode);
  const PrefixNode gone = at(node);
  unlink(node);
  if (gone.newer_sibling != kNoNode) {
    at(gone.newer_sibling).older_sibling = gone.older_sibling;
  } else {
    at(gone.parent).first_child = gone.older_sibling;
  }
  if (gone.older_sibling != kNoNode) at(gone.older_sibling).newer_sibling = gone.newer_sibling;
  at(node).in_use = false;
  unused_.push_back(node);
  --num_nodes_;
  const NodeId parent = gone.parent;
  if (at(parent).parent != kNoNode || at(parent).first_child != kNoNode) return;
  const auto scope = scopes_.find(parent);
  roots_.erase(scope->second);
  scopes_.erase(scope);
  at(parent).in_use = false;
  unused_.push_back(parent);
}

PrefixIndex::Partial PrefixIndex::best_partial(NodeId parent,
                                               absl::Span<const TokenId> tokens) const {
  Partial best;
  const std::size_t most = std::min(tokens.size(), block_size_);
  int looked_at = 0;
  for (NodeId child = at(parent).first_child; child != kNoNode && looked_at < kMostChildren;
       child = at(child).older_sibling, ++looked_at) {
    if (at(child).block < 0) continue;
    const absl::Span<const TokenId> has = this->tokens(child);
    std::size_t same = 0;
    while (same < most && has[same] == tokens[same]) ++same;
    if (static_cast<int>(same) > best.num_tokens) best = {child, static_cast<int>(same)};
  }
  return best;
}

}  // namespace quire
