// Cuts are found by dynamic programming over (rank, first leaf): model dimensions are small, and an
// exact answer is the same on every process that asks.
#include "common/shard.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire {
namespace {

constexpr int kNever = std::numeric_limits<int>::max();

int divide_up(int a, int b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

// The largest power of two below n (n > 1): how many children go to the left.
int left_count(int n) {
  int p = 1;
  while (p < n - p) p *= 2;
  return p;
}

class TreeBuilder {
 public:
  explicit TreeBuilder(const std::vector<int>& counts) : first_leaf_(counts.size() + 1, 0) {
    for (std::size_t i = 0; i < counts.size(); ++i) {
      QUIRE_CHECK_GT(counts[i], 0);
      first_leaf_[i + 1] = first_leaf_[i] + counts[i];
    }
    if (!counts.empty()) add_groups(0, static_cast<int>(counts.size()));
  }
  std::vector<ReductionTree::Node> take() { return std::move(nodes_); }

 private:
  int add_groups(int first, int n) {
    const int begin = first_leaf_[first];
    const int end = first_leaf_[first + n];
    if (n == 1) return add_leaves(begin, end - begin);
    const int id = add_node({begin, end});
    const int cut = left_count(n);
    const int left = add_groups(first, cut);
    const int right = add_groups(first + cut, n - cut);
    nodes_[id].left = left;
    nodes_[id].right = right;
    return id;
  }
  int add_leaves(int begin, int n) {
    const int id = add_node({begin, begin + n});
    if (n == 1) return id;
    const int cut = left_count(n);
    const int left = add_leaves(begin, cut);
    const int right = add_leaves(begin + cut, n - cut);
    nodes_[id].left = left;
    nodes_[id].right = right;
    return id;
  }
  int add_node(Range leaves) {
    nodes_.push_back({leaves});
    return static_cast<int>(nodes_.size()) - 1;
  }

  std::vector<int> first_leaf_;  // of each group, and the end
  std::vector<ReductionTree::Node> nodes_;
};

void collect_subtrees(const std::vector<ReductionTree::Node>& nodes, int id, Range owned,
                      std::vector<int>* out) {
  const ReductionTree::Node& node = nodes[id];
  if (node.leaves.end <= owned.begin || owned.end <= node.leaves.begin) return;
  if (owned.begin <= node.leaves.begin && node.leaves.end <= owned.end) {
    out->push_back(id);
    return;
  }
  collect_subtrees(nodes, node.left, owned, out);
  collect_subtrees(nodes, node.right, owned, out);
}

// How a cut is judged: the cost of one rank's range (kNever forbids it), and how costs join.
struct Objective {
  std::function<int(Range)> cost;
  std::function<int(int, int)> join;
};

struct Cut {
  int cost = kNever;
  std::vector<Range> ranges;  // one per rank, contiguous and in order
};

// The best cut of [0, n) into `world` contiguous ranges of min_size to max_size leaves. Ties go to
// the larger range on the earlier rank.
Cut best_cut(int n, int world, int min_size, int max_size, const Objective& objective) {
  // best[r][b]: cost of dealing [b, n) to ranks r and after; size[r][b]: what rank r takes.
  std::vector<std::vector<int>> best(world + 1, std::vector<int>(n + 1, kNever));
  std::vector<std::vector<int>> size(world, std::vector<int>(n + 1, 0));
  best[world][n] = 0;
  for (int r = world - 1; r >= 0; --r) {
    // Only those beginnings that the ranks before can reach, and the ranks after can finish.
    const std::int64_t after = world - r;
    const int low = static_cast<int>(
        std::max<std::int64_t>(std::int64_t{r} * min_size, std::int64_t{n} - after * max_size));
    const int high = static_cast<int>(
        std::min<std::int64_t>(std::int64_t{r} * max_size, std::int64_t{n} - after * min_size));
    for (int b = low; b <= high; ++b) {
      for (int s = std::min(max_size, n - b); s >= min_size; --s) {
        if (best[r + 1][b + s] == kNever) continue;
        const int own = objective.cost({b, b + s});
        if (own == kNever) continue;
        const int total = objective.join(own, best[r + 1][b + s]);
        if (total < best[r][b]) {
          best[r][b] = total;
          size[r][b] = s;
        }
      }
    }
  }
  Cut cut;
  cut.cost = best[0][0];
  if (cut.cost == kNever) return cut;
  for (int r = 0, b = 0; r < world; ++r) {
    cut.ranges.push_back({b, b + size[r][b]});
    b = cut.ranges.back().end;
  }
  return cut;
}

int sum(int a, int b) {
  return a + b;
}

int num_subtrees(const ReductionTree& tree, Range leaves) {
  return leaves.empty() ? 0 : static_cast<int>(tree.maximal_subtrees(leaves).size());
}

Range kv_heads_of(Range heads, int group_heads) {
  return {heads.begin / group_heads, divide_up(heads.end, group_heads)};
}

// Every rank has a query head; the largest share is the smallest possible, then the largest number
// of KV heads held is, then the number of subtrees.
std::vector<Range> cut_heads(const ReductionTree& tree, int num_heads, int group_heads, int world) {
  const int most = divide_up(num_heads, world);
  const auto kv_held = [&](Range heads) { return kv_heads_of(heads, group_heads).size(); };
  const int most_kv =
      best_cut(num_heads, world, 1, most, {kv_held, [](int a, int b) { return std::max(a, b); }})
          .cost;
  QUIRE_CHECK_NE(most_kv, kNever);
  const auto subtrees = [&](Range heads) {
    return kv_held(heads) > most_kv ? kNever : num_subtrees(tree, heads);
  };
  return best_cut(num_heads, world, 1, most, {subtrees, sum}).ranges;
}

std::vector<Range> cut_evenly(const ReductionTree& tree, int world) {
  const int n = tree.num_leaves();
  const auto subtrees = [&](Range leaves) { return num_subtrees(tree, leaves); };
  return best_cut(n, world, n / world, divide_up(n, world), {subtrees, sum}).ranges;
}

// Whole segments, the first ranks taking one more where they do not divide evenly.
Range vocab_of(int vocab, int world, int rank) {
  const int segments = divide_up(vocab, kVocabSegment);
  const auto edge = [&](int r) {
    const std::int64_t segment = std::int64_t{segments / world} * r + std::min(r, segments % world);
    return static_cast<int>(std::min<std::int64_t>(segment * kVocabSegment, vocab));
  };
  return {edge(rank), edge(rank + 1)};
}

LeafCut attention_leaves(const ModelSpec& spec) {
  LeafCut cut;
  for (int h = 0; h < spec.num_heads; ++h) {
    cut.leaves.push_back({h * spec.head_dim, (h + 1) * spec.head_dim});
  }
  cut.tree = ReductionTree::over_groups(std::vector<int>(spec.num_kv_heads, spec.group_heads()));
  return cut;
}

LeafCut ffn_leaves(int ffn, int format_block) {
  LeafCut cut;
  const int size = ffn_leaf_size(ffn, format_block);
  for (int begin = 0; begin < ffn; begin += std::min(size, ffn - begin)) {
    cut.leaves.push_back({begin, begin + std::min(size, ffn - begin)});
  }
  cut.tree = ReductionTree::over_leaves(static_cast<int>(cut.leaves.size()));
  return cut;
}

absl::Status check_cut(const ModelSpec& spec, int world, int format_block) {
  if (world < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor_parallel_size is ", world, ", but must be at least 1."));
  }
  if (world > spec.num_heads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The model has ", spec.num_heads, " query heads and so can use at most ", spec.num_heads,
        " ranks, but ", world, " ranks were asked for: lower tensor_parallel_size."));
  }
  if (spec.head_dim % format_block != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("A head of this model is ", spec.head_dim,
                     " wide, which its quantization blocks of ", format_block,
                     " values do not divide: its output projection cannot be cut by heads. Use a "
                     "checkpoint in f32, f16 or bf16."));
  }
  return absl::OkStatus();
}

}  // namespace

ReductionTree ReductionTree::over_groups(const std::vector<int>& counts) {
  ReductionTree tree;
  tree.nodes_ = TreeBuilder(counts).take();
  return tree;
}

std::vector<int> ReductionTree::maximal_subtrees(Range owned) const {
  std::vector<int> out;
  if (!nodes_.empty() && !owned.empty()) collect_subtrees(nodes_, 0, owned, &out);
  return out;
}

int ffn_leaf_size(int ffn, int format_block) {
  const int unit = std::max(32, format_block);
  // ceil(ffn / size) >= k  <=>  ffn > (k - 1) * size.
  const std::int64_t most = (std::int64_t{ffn} - 1) / (std::int64_t{kMinFfnLeaves - 1} * unit);
  return static_cast<int>(std::max<std::int64_t>(most, 1)) * unit;
}

absl::StatusOr<ShardMap> make_shard_map(const ModelSpec& spec, int world, int format_block) {
  QUIRE_CHECK_GT(format_block, 0);
  QUIRE_CHECK_GT(spec.num_kv_heads, 0);
  QUIRE_CHECK_EQ(spec.num_heads % spec.num_kv_heads, 0);
  if (absl::Status status = check_cut(spec, world, format_block); !status.ok()) return status;

  ShardMap map;
  map.world = world;
  map.attention = attention_leaves(spec);
  map.ffn = ffn_leaves(spec.ffn, format_block);
  const std::vector<Range> heads =
      cut_heads(map.attention.tree, spec.num_heads, spec.group_heads(), world);
  const std::vector<Range> leaves = cut_evenly(map.ffn.tree, world);
  for (int r = 0; r < world; ++r) {
    RankShard shard;
    shard.heads = heads[r];
    shard.kv_heads = kv_heads_of(heads[r], spec.group_heads());
    shard.ffn_leaves = leaves[r];
    const auto element = [&](int leaf) {
      return leaf == map.ffn.tree.num_leaves() ? spec.ffn : map.ffn.leaves[leaf].begin;
    };
    shard.ffn = {element(leaves[r].begin), element(leaves[r].end)};
    shard.vocab = vocab_of(spec.vocab, world, r);
    map.ranks.push_back(shard);
  }
  return map;
}

}  // namespace quire
