// Who owns which slice: pure arithmetic over a ModelSpec, the same on coordinator and workers.
//
// Column-parallel matrices are cut by output rows, row-parallel ones by input columns, the
// vocabulary by segments. A row-parallel sum is taken over leaves that depend on the model only,
// combined by one fixed binary tree, so every tensor-parallel degree gives the same bits.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model_spec.h"

namespace quire {

inline constexpr int kVocabSegment = 1024;  // ids; log-sum-exp is merged per segment
inline constexpr int kMinFfnLeaves = 12;

struct Range {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  bool empty() const { return begin == end; }
  bool operator==(const Range&) const = default;
};

// The fixed binary tree over the leaves of one row-parallel sum. Node 0 is the root.
class ReductionTree {
 public:
  struct Node {
    Range leaves;   // the leaves below this node
    int left = -1;  // -1 for a leaf
    int right = -1;
  };

  // A tree over `counts.size()` groups whose children are trees over counts[i] leaves. Every node
  // over n > 1 children splits at the largest power of two below n.
  static ReductionTree over_groups(const std::vector<int>& counts);
  static ReductionTree over_leaves(int num_leaves) { return over_groups({num_leaves}); }

  const std::vector<Node>& nodes() const { return nodes_; }
  int num_leaves() const { return nodes_.empty() ? 0 : nodes_[0].leaves.end; }
  // The largest nodes that lie wholly inside `owned`, in leaf order: what a rank sends.
  std::vector<int> maximal_subtrees(Range owned) const;

 private:
  std::vector<Node> nodes_;
};

// One row-parallel input dimension K: its leaves as element ranges, and the tree over them.
struct LeafCut {
  std::vector<Range> leaves;  // element ranges of K, contiguous and in order
  ReductionTree tree;
};

struct RankShard {
  Range heads;       // query heads
  Range kv_heads;    // KV heads those need; ranges of neighbours may overlap (replicated)
  Range ffn_leaves;  // leaves of the ffn dimension
  Range ffn;         // the same as elements
  Range vocab;       // token ids; cut on segment boundaries
};

struct ShardMap {
  int world = 1;
  LeafCut attention;  // over H * D: one query head is a leaf, grouped by KV head
  LeafCut ffn;        // over F
  std::vector<RankShard> ranks;
};

// The largest multiple of max(32, format_block) that still gives at least kMinFfnLeaves leaves
// (or max(32, format_block) itself where the width does not allow that many).
int ffn_leaf_size(int ffn, int format_block);

// Chooses contiguous cuts with the smallest maximum load, then the fewest subtrees. `format_block`
// is the largest quantization block among the row-parallel matrices (1 for plain formats).
// InvalidArgument names both numbers when world exceeds the number of query heads.
absl::StatusOr<ShardMap> make_shard_map(const ModelSpec& spec, int world, int format_block);

}  // namespace quire
