// The summation plan of one rank: a walk of its maximal subtrees.
#include "kernels/weight.h"

#include "common/check.h"

namespace quire {
namespace {

// Pushes the leaves below `node`; every inner node is one merge right after its last leaf.
void append_subtree(const LeafCut& cut, int node_index, int origin, SumPlan& plan) {
  const ReductionTree::Node& node = cut.tree.nodes()[static_cast<std::size_t>(node_index)];
  if (node.left < 0) {
    const Range leaf = cut.leaves[static_cast<std::size_t>(node.leaves.begin)];
    plan.leaves.push_back({leaf.begin - origin, leaf.end - origin});
    plan.merges.push_back(0);
    return;
  }
  append_subtree(cut, node.left, origin, plan);
  append_subtree(cut, node.right, origin, plan);
  ++plan.merges.back();
}

}  // namespace

SumPlan make_sum_plan(const LeafCut& cut, Range owned_leaves) {
  SumPlan plan;
  plan.num_outputs = 0;
  if (owned_leaves.empty()) return plan;
  const int origin = cut.leaves[static_cast<std::size_t>(owned_leaves.begin)].begin;
  for (const int node : cut.tree.maximal_subtrees(owned_leaves)) {
    append_subtree(cut, node, origin, plan);
    ++plan.num_outputs;
  }
  QUIRE_CHECK_EQ(static_cast<int>(plan.leaves.size()), owned_leaves.size());
  return plan;
}

}  // namespace quire
