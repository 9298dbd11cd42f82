// Which full blocks of tokens are kept where: a tree whose nodes are blocks, so that a path from a
// root is a prefix. One child of a node, for most the only one, is found at the node itself: a text
// that grows, alone, costs no hash. Others are found by a keyed hash of their parent's id and their
// tokens; both are compared on a hit, so no collision can ever hand out other content. Ids of nodes
// are never confused either: a node goes only when nothing is below it.
//
// A root stands for a scope (tenant and salt): nothing is found across scopes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/ids.h"

namespace quire {

using NodeId = std::int32_t;
inline constexpr NodeId kNoNode = -1;

struct PrefixNode {
  NodeId parent = kNoNode;  // kNoNode: a root
  NodeId first_child = kNoNode;
  NodeId direct_child = kNoNode;  // in no bucket
  NodeId older_sibling = kNoNode;
  NodeId newer_sibling = kNoNode;
  NodeId next_in_bucket = kNoNode;
  std::uint64_t hash = 0;
  BlockId block = -1;     // on the device; -1: not there
  HostBlockId host = -1;  // in the offload store; -1: not there
  int priority = 0;       // the most important that used it
  bool wanted = false;    // found at least once, or by a sequence that comes back
  bool in_use = false;    // as a node
};

class PrefixIndex {
 public:
  PrefixIndex(int block_size, std::uint64_t key);
  void clear();

  NodeId find_root(absl::string_view scope) const;  // kNoNode if there is none
  NodeId root(absl::string_view scope);             // made if there is none
  // `tokens` is one block.
  NodeId find_child(NodeId parent, absl::Span<const TokenId> tokens) const;
  // kNoNode if too many others have the same hash: that content is not kept.
  NodeId insert(NodeId parent, absl::Span<const TokenId> tokens);
  // Without children. A root whose last child goes, goes too.
  void remove(NodeId node);

  // The child on the device that shares the most leading tokens with `tokens`; at most a few of the
  // newest children are looked at.
  struct Partial {
    NodeId node = kNoNode;
    int num_tokens = 0;
  };
  Partial best_partial(NodeId parent, absl::Span<const TokenId> tokens) const;

  PrefixNode& at(NodeId node) { return nodes_[static_cast<std::size_t>(node)]; }
  const PrefixNode& at(NodeId node) const { return nodes_[static_cast<std::size_t>(node)]; }
  absl::Span<const TokenId> tokens(NodeId node) const;
  int num_nodes() const { return num_nodes_; }  // without roots
  const absl::flat_hash_map<std::string, NodeId>& roots() const { return roots_; }

 private:
  std::uint64_t hash_of(NodeId parent, absl::Span<const TokenId> tokens) const;
  NodeId make_node(NodeId parent);
  void unlink(NodeId node);

  const std::size_t block_size_;
  const std::uint64_t key_;
  std::vector<PrefixNode> nodes_;
  std::vector<TokenId> tokens_;  // [node][block_size]
  std::vector<NodeId> unused_;
  absl::flat_hash_map<std::uint64_t, NodeId> buckets_;  // the first node of a hash
  absl::flat_hash_map<std::string, NodeId> roots_;
  absl::flat_hash_map<NodeId, std::string> scopes_;  // of roots
  int num_nodes_ = 0;
};

}  // namespace quire
