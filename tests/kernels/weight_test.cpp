// make_sum_plan against the tree itself: whatever leaves a rank owns, running its plan and then
// adding the maximal subtrees up the tree gives the bits of adding all leaves up the tree.
#include "kernels/weight.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace quire {
namespace {

LeafCut make_cut(const std::vector<int>& counts, int leaf_size) {
  LeafCut cut;
  cut.tree = ReductionTree::over_groups(counts);
  for (int i = 0; i < cut.tree.num_leaves(); ++i) {
    cut.leaves.push_back({i * leaf_size, (i + 1) * leaf_size});
  }
  return cut;
}

float sum_node(const ReductionTree& tree, int node, const std::vector<float>& leaves) {
  const ReductionTree::Node& n = tree.nodes()[static_cast<std::size_t>(node)];
  if (n.left < 0) return leaves[static_cast<std::size_t>(n.leaves.begin)];
  return sum_node(tree, n.left, leaves) + sum_node(tree, n.right, leaves);
}

std::vector<float> run_plan(const SumPlan& plan, const std::vector<float>& leaves, int first) {
  std::vector<float> stack;
  for (std::size_t i = 0; i < plan.leaves.size(); ++i) {
    stack.push_back(leaves[static_cast<std::size_t>(first) + i]);
    for (int m = 0; m < plan.merges[i]; ++m) {
      const float upper = stack.back();
      stack.pop_back();
      stack.back() += upper;
    }
  }
  return stack;
}

TEST(SumPlan, ReproducesTheTreeForEveryContiguousOwnership) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const std::vector<std::vector<int>> shapes = {{1},       {3, 3, 3}, {12},     {7},
                                                {1, 1, 1}, {4, 4},    {5, 3, 2}};
  for (const std::vector<int>& counts : shapes) {
    const LeafCut cut = make_cut(counts, 32);
    const int n = cut.tree.num_leaves();
    std::vector<float> leaves(static_cast<std::size_t>(n));
    for (float& x : leaves) x = normal(random);
    for (int begin = 0; begin < n; ++begin) {
      for (int end = begin + 1; end <= n; ++end) {
        const SumPlan plan = make_sum_plan(cut, {begin, end});
        const std::vector<int> subtrees = cut.tree.maximal_subtrees({begin, end});
        ASSERT_EQ(plan.num_outputs, static_cast<int>(subtrees.size()));
        ASSERT_EQ(plan.leaves.front(), (Range{0, 32}));
        ASSERT_EQ(plan.leaves.back().end, (end - begin) * 32);
        const std::vector<float> partials = run_plan(plan, leaves, begin);
        ASSERT_EQ(partials.size(), subtrees.size());
        for (std::size_t i = 0; i < subtrees.size(); ++i) {
          EXPECT_EQ(partials[i], sum_node(cut.tree, subtrees[i], leaves));
        }
      }
    }
  }
}

TEST(SumPlan, ARankWithoutLeavesHasNoOutput) {
  const SumPlan plan = make_sum_plan(make_cut({3}, 32), {1, 1});
  EXPECT_TRUE(plan.leaves.empty());
  EXPECT_EQ(plan.num_outputs, 0);
}

}  // namespace
}  // namespace quire
