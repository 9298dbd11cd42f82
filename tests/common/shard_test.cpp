// The cut of every model shape over every number of ranks: shards joined are the whole, trees are
// the contract's, loads are the smallest possible (checked against an exhaustive search).
#include "common/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelSpec spec_of(int heads, int kv_heads, int head_dim, int ffn, int vocab) {
  ModelSpec spec;
  spec.num_heads = heads;
  spec.num_kv_heads = kv_heads;
  spec.head_dim = head_dim;
  spec.ffn = ffn;
  spec.vocab = vocab;
  return spec;
}

const ModelSpec kSmolLm2 = spec_of(9, 3, 64, 1536, 49152);

const ModelSpec kShapes[] = {
    kSmolLm2,
    spec_of(8, 4, 8, 172, 512),   // stories260K
    spec_of(4, 2, 16, 128, 512),  // tiny-random
    spec_of(32, 8, 128, 14336, 128256),
    spec_of(32, 32, 128, 11008, 32000),
    spec_of(14, 2, 64, 4864, 151936),
    spec_of(15, 5, 64, 2560, 49152),
    spec_of(12, 2, 128, 8960, 151936),
    spec_of(25, 5, 64, 5504, 32001),
    spec_of(16, 1, 64, 33, 1025),
    spec_of(1, 1, 32, 1, 1),
    spec_of(7, 7, 32, 11 * 32, 3000),
};

struct Case {
  ModelSpec spec;
  int world;
  int block;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const ModelSpec& spec : kShapes) {
    for (int world = 1; world <= 16; ++world) {
      for (int block : {1, 32}) {
        if (world <= spec.num_heads && spec.head_dim % block == 0) {
          cases.push_back({spec, world, block});
        }
      }
    }
  }
  return cases;
}

std::string name(const Case& c) {
  return "H=" + std::to_string(c.spec.num_heads) + " G=" + std::to_string(c.spec.num_kv_heads) +
         " F=" + std::to_string(c.spec.ffn) + " V=" + std::to_string(c.spec.vocab) +
         " N=" + std::to_string(c.world) + " block=" + std::to_string(c.block);
}

ShardMap map_of(const Case& c) {
  absl::StatusOr<ShardMap> map = make_shard_map(c.spec, c.world, c.block);
  EXPECT_TRUE(map.ok()) << map.status();
  return *std::move(map);
}

// Checks one node of a tree: its children split its units (leaves, or whole groups) at the largest
// power of two.
void check_node(const ReductionTree& tree, int id, int group) {
  const ReductionTree::Node& node = tree.nodes()[id];
  if (node.leaves.size() == 1) {
    EXPECT_EQ(node.left, -1);
    EXPECT_EQ(node.right, -1);
    return;
  }
  const int unit = node.leaves.size() > group ? group : 1;
  ASSERT_EQ(node.leaves.size() % unit, 0);
  const unsigned n = static_cast<unsigned>(node.leaves.size() / unit);
  const Range left = tree.nodes()[node.left].leaves;
  const Range right = tree.nodes()[node.right].leaves;
  EXPECT_EQ(left.begin, node.leaves.begin);
  EXPECT_EQ(left.end, right.begin);
  EXPECT_EQ(right.end, node.leaves.end);
  EXPECT_EQ(left.size(), static_cast<int>(std::bit_floor(n - 1)) * unit);
  check_node(tree, node.left, group);
  check_node(tree, node.right, group);
}

TEST(ReductionTreeTest, TwelveLeavesSplitAtPowersOfTwo) {
  const ReductionTree tree = ReductionTree::over_leaves(12);
  ASSERT_EQ(tree.nodes().size(), 23u);
  EXPECT_EQ(tree.nodes()[tree.nodes()[0].left].leaves, (Range{0, 8}));
  EXPECT_EQ(tree.nodes()[tree.nodes()[0].right].leaves, (Range{8, 12}));
}

TEST(ReductionTreeTest, HeadsInsideGroupsFirst) {
  const ReductionTree tree = ReductionTree::over_groups({3, 3, 3});
  const auto& nodes = tree.nodes();
  EXPECT_EQ(nodes[nodes[0].left].leaves, (Range{0, 6}));
  EXPECT_EQ(nodes[nodes[0].right].leaves, (Range{6, 9}));
  const ReductionTree::Node& last = nodes[nodes[0].right];
  EXPECT_EQ(nodes[last.left].leaves, (Range{6, 8}));
}

TEST(ReductionTreeTest, EmptyAndSingle) {
  EXPECT_EQ(ReductionTree::over_groups({}).num_leaves(), 0);
  const ReductionTree one = ReductionTree::over_leaves(1);
  EXPECT_EQ(one.nodes().size(), 1u);
  EXPECT_THAT(one.maximal_subtrees({0, 1}), ElementsAre(0));
  EXPECT_TRUE(one.maximal_subtrees({1, 1}).empty());
}

TEST(ShardTest, LeafSizes) {
  EXPECT_EQ(ffn_leaf_size(1536, 32), 128);
  EXPECT_EQ(ffn_leaf_size(14336, 32), 1280);  // 12 leaves, the last short
  EXPECT_EQ(ffn_leaf_size(14336, 256), 1280);
  EXPECT_EQ(ffn_leaf_size(172, 1), 32);
  EXPECT_EQ(ffn_leaf_size(1, 256), 256);
  for (int ffn = 1; ffn < 5000; ++ffn) {
    const int size = ffn_leaf_size(ffn, 32);
    const auto leaves = [&](int s) { return (ffn + s - 1) / s; };
    EXPECT_TRUE(leaves(size) >= kMinFfnLeaves || size == 32) << ffn;
    EXPECT_LT(leaves(size + 32), kMinFfnLeaves) << ffn;
  }
}

TEST(ShardTest, TreesAreTheContracts) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(name(c));
    const ShardMap map = map_of(c);
    ASSERT_EQ(map.attention.tree.num_leaves(), c.spec.num_heads);
    check_node(map.attention.tree, 0, c.spec.group_heads());
    check_node(map.ffn.tree, 0, map.ffn.tree.num_leaves());
    const ShardMap alone = map_of({c.spec, 1, c.block});  // leaves depend on the model only
    EXPECT_EQ(map.ffn.leaves, alone.ffn.leaves);
    EXPECT_EQ(map.attention.leaves, alone.attention.leaves);
  }
}

// Expects ranges to follow each other from 0 to `whole`.
template <typename Get>
void expect_whole(const ShardMap& map, int whole, Get get) {
  int at = 0;
  for (const RankShard& rank : map.ranks) {
    EXPECT_EQ(get(rank).begin, at);
    EXPECT_LE(get(rank).begin, get(rank).end);
    at = get(rank).end;
  }
  EXPECT_EQ(at, whole);
}

TEST(ShardTest, JoinedShardsAreTheWhole) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(name(c));
    const ShardMap map = map_of(c);
    ASSERT_EQ(map.ranks.size(), static_cast<std::size_t>(c.world));
    expect_whole(map, c.spec.num_heads, [](const RankShard& r) { return r.heads; });
    expect_whole(map, c.spec.ffn, [](const RankShard& r) { return r.ffn; });
    expect_whole(map, c.spec.vocab, [](const RankShard& r) { return r.vocab; });
    expect_whole(map, map.ffn.tree.num_leaves(), [](const RankShard& r) { return r.ffn_leaves; });
    EXPECT_EQ(map.ffn.leaves.front().begin, 0);
    EXPECT_EQ(map.ffn.leaves.back().end, c.spec.ffn);
    EXPECT_EQ(map.attention.leaves.back().end, c.spec.num_heads * c.spec.head_dim);
    for (const RankShard& rank : map.ranks) {
      EXPECT_TRUE(rank.vocab.begin % kVocabSegment == 0 || rank.vocab.empty());
      EXPECT_EQ(rank.kv_heads.begin, rank.heads.begin / c.spec.group_heads());
      EXPECT_EQ(rank.kv_heads.end, (rank.heads.end - 1) / c.spec.group_heads() + 1);
      if (!rank.ffn_leaves.empty()) {
        EXPECT_EQ(rank.ffn.begin, map.ffn.leaves[rank.ffn_leaves.begin].begin);
        EXPECT_EQ(rank.ffn.end, map.ffn.leaves[rank.ffn_leaves.end - 1].end);
      }
    }
  }
}

TEST(ShardTest, SubtreesCoverExactlyAndAreMaximal) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(name(c));
    const ShardMap map = map_of(c);
    for (const RankShard& rank : map.ranks) {
      for (const auto& [cut, owned] :
           {std::pair(&map.attention, rank.heads), std::pair(&map.ffn, rank.ffn_leaves)}) {
        int at = owned.begin;
        const std::vector<int> subtrees = cut->tree.maximal_subtrees(owned);
        for (int id : subtrees) {
          EXPECT_EQ(cut->tree.nodes()[id].leaves.begin, at);
          at = cut->tree.nodes()[id].leaves.end;
          for (const ReductionTree::Node& parent : cut->tree.nodes()) {
            if (parent.left != id && parent.right != id) continue;
            EXPECT_FALSE(owned.begin <= parent.leaves.begin && parent.leaves.end <= owned.end);
          }
        }
        EXPECT_EQ(at, owned.end);
      }
    }
  }
}

TEST(ShardTest, LoadsAreSmallest) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(name(c));
    const ShardMap map = map_of(c);
    const int leaves = map.ffn.tree.num_leaves();
    const int segments = (c.spec.vocab + kVocabSegment - 1) / kVocabSegment;
    for (const RankShard& rank : map.ranks) {
      EXPECT_GE(rank.heads.size(), 1);
      EXPECT_LE(rank.heads.size(), (c.spec.num_heads + c.world - 1) / c.world);
      EXPECT_GE(rank.ffn_leaves.size(), leaves / c.world);
      EXPECT_LE(rank.ffn_leaves.size(), (leaves + c.world - 1) / c.world);
      EXPECT_LE(rank.vocab.size(), (segments + c.world - 1) / c.world * kVocabSegment);
      EXPECT_GE(rank.vocab.size(), (segments / c.world - 1) * kVocabSegment);
    }
  }
}

// (largest share, most KV heads, subtrees) of a cut given by its head counts.
std::tuple<int, int, int> score(const ShardMap& map, const std::vector<Range>& heads, int group) {
  int share = 0, kv = 0, subtrees = 0;
  for (Range r : heads) {
    share = std::max(share, r.size());
    kv = std::max(kv, (r.end - 1) / group + 1 - r.begin / group);
    subtrees += static_cast<int>(map.attention.tree.maximal_subtrees(r).size());
  }
  return {share, kv, subtrees};
}

void search(const ShardMap& map, int num_heads, int group, int world, std::vector<Range>* heads,
            std::tuple<int, int, int>* best) {
  const int begin = heads->empty() ? 0 : heads->back().end;
  const int left = world - static_cast<int>(heads->size());
  if (left == 1) {
    heads->push_back({begin, num_heads});
    *best = std::min(*best, score(map, *heads, group));
    heads->pop_back();
    return;
  }
  for (int end = begin + 1; end <= num_heads - (left - 1); ++end) {
    heads->push_back({begin, end});
    search(map, num_heads, group, world, heads, best);
    heads->pop_back();
  }
}

TEST(ShardTest, HeadCutIsTheBestOfAll) {
  for (const Case& c : all_cases()) {
    if (c.spec.num_heads > 12 || c.block != 1) continue;
    SCOPED_TRACE(name(c));
    const ShardMap map = map_of(c);
    std::vector<Range> chosen;
    for (const RankShard& rank : map.ranks) chosen.push_back(rank.heads);
    std::tuple<int, int, int> best{1 << 30, 0, 0};
    std::vector<Range> scratch;
    search(map, c.spec.num_heads, c.spec.group_heads(), c.world, &scratch, &best);
    EXPECT_EQ(score(map, chosen, c.spec.group_heads()), best);
  }
}

TEST(ShardTest, SmolLm2) {
  const auto heads = [](int world) {
    std::vector<int> sizes;
    const ShardMap map = map_of({kSmolLm2, world, 32});
    for (const RankShard& rank : map.ranks) {
      sizes.push_back(rank.heads.size());
    }
    return sizes;
  };
  EXPECT_THAT(heads(1), ElementsAre(9));
  EXPECT_THAT(heads(2), ElementsAre(5, 4));
  EXPECT_THAT(heads(3), ElementsAre(3, 3, 3));
  EXPECT_THAT(heads(9), ElementsAre(1, 1, 1, 1, 1, 1, 1, 1, 1));
  const ShardMap four = map_of({kSmolLm2, 4, 32});
  for (const RankShard& rank : four.ranks) EXPECT_EQ(rank.kv_heads.size(), 1);
  EXPECT_EQ(four.ffn.leaves.size(), 12u);
  EXPECT_EQ(four.ranks[3].vocab, (Range{36864, 49152}));
}

TEST(ShardTest, TooManyRanksNamesBothNumbers) {
  const absl::Status status = make_shard_map(kSmolLm2, 10, 32).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("9 query heads"), HasSubstr("10 ranks")));
  EXPECT_EQ(make_shard_map(kSmolLm2, 0, 32).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ShardTest, BlocksThatDoNotDivideAHeadAreRefused) {
  const absl::Status status = make_shard_map(spec_of(4, 2, 16, 128, 512), 2, 32).status();
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("16 wide"), HasSubstr("32 values")));
}

}  // namespace
}  // namespace quire
