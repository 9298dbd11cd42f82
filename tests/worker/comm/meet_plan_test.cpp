// The combine program of N ranks gives bit for bit what one rank gives alone, for every cut.
#include <gtest/gtest.h>

#include <random>

#include "kernels/weight.h"
#include "worker/comm/comm.h"

namespace quire {
namespace {

// Sums leaf values by a rank's SumPlan: the stack of partial sums that is left.
std::vector<float> local_sums(const SumPlan& plan, const std::vector<float>& leaves) {
  std::vector<float> stack;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    stack.push_back(leaves[i]);
    for (int m = 0; m < plan.merges[i]; ++m) {
      const float upper = stack.back();
      stack.pop_back();
      stack.back() = stack.back() + upper;
    }
  }
  return stack;
}

float run_program(const MeetPlan& plan, const std::vector<std::vector<float>>& outputs_by_rank) {
  std::vector<float> stack;
  for (int entry : plan.program) {
    if (entry >= 0) {
      const MeetPlan::Source& source = plan.sources[static_cast<std::size_t>(entry)];
      stack.push_back(outputs_by_rank[static_cast<std::size_t>(source.rank)]
                                     [static_cast<std::size_t>(source.output)]);
    } else {
      const float upper = stack.back();
      stack.pop_back();
      stack.back() = stack.back() + upper;
    }
  }
  EXPECT_EQ(stack.size(), 1u);
  return stack.back();
}

ModelSpec spec_of(int heads, int kv_heads, int ffn) {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.num_layers = 1;
  spec.num_heads = heads;
  spec.num_kv_heads = kv_heads;
  spec.head_dim = 32;
  spec.hidden = heads * 32;
  spec.ffn = ffn;
  spec.vocab = 3000;
  spec.max_positions = 128;
  spec.rope.dims = 32;
  return spec;
}

float sum_at(const LeafCut& cut, const std::vector<Range>& owned,
             const std::vector<float>& values) {
  std::vector<std::vector<float>> outputs;
  for (const Range& range : owned) {
    const std::vector<float> mine(values.begin() + range.begin, values.begin() + range.end);
    outputs.push_back(local_sums(make_sum_plan(cut, range), mine));
  }
  return run_program(make_meet_plan(cut, owned), outputs);
}

TEST(MeetPlan, EveryDegreeGivesTheSameBits) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const auto& [heads, kv_heads, ffn] : std::vector<std::tuple<int, int, int>>{
           {9, 3, 1536}, {8, 4, 172}, {12, 1, 4096}, {5, 5, 100}, {16, 2, 2048}, {7, 7, 33}}) {
    const ModelSpec spec = spec_of(heads, kv_heads, ffn);
    const auto alone = make_shard_map(spec, 1, 32);
    ASSERT_TRUE(alone.ok()) << alone.status();
    for (int trial = 0; trial < 8; ++trial) {
      std::vector<float> by_head(static_cast<std::size_t>(heads));
      std::vector<float> by_leaf(alone->ffn.leaves.size());
      for (float& v : by_head) v = normal(random);
      for (float& v : by_leaf) v = normal(random);
      const float attention = sum_at(alone->attention, {alone->ranks[0].heads}, by_head);
      const float ffn_sum = sum_at(alone->ffn, {alone->ranks[0].ffn_leaves}, by_leaf);
      for (int world = 2; world <= heads; ++world) {
        const auto map = make_shard_map(spec, world, 32);
        ASSERT_TRUE(map.ok()) << map.status();
        std::vector<Range> head_ranges, leaf_ranges;
        for (const RankShard& rank : map->ranks) {
          head_ranges.push_back(rank.heads);
          leaf_ranges.push_back(rank.ffn_leaves);
        }
        EXPECT_EQ(sum_at(map->attention, head_ranges, by_head), attention)
            << heads << " heads over " << world;
        EXPECT_EQ(sum_at(map->ffn, leaf_ranges, by_leaf), ffn_sum) << ffn << " ffn over " << world;
      }
    }
  }
}

}  // namespace
}  // namespace quire
