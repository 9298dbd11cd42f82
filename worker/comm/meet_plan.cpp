// From a reduction tree and who owns which leaves to the combine program of every rank.
#include "worker/comm/comm.h"

namespace quire {
namespace {

// Post-order below `node`: a node that is somebody's maximal subtree is pushed, an inner node adds
// its children, and a child without any leaf owner is skipped, not added as zero. Returns whether
// anything was pushed.
bool emit(const ReductionTree& tree, int node, const std::vector<int>& source_of, MeetPlan& plan) {
  if (const int source = source_of[static_cast<std::size_t>(node)]; source >= 0) {
    plan.program.push_back(source);
    return true;
  }
  const ReductionTree::Node& n = tree.nodes()[static_cast<std::size_t>(node)];
  if (n.left < 0) return false;
  const bool left = emit(tree, n.left, source_of, plan);
  const bool right = emit(tree, n.right, source_of, plan);
  if (left && right) plan.program.push_back(-1);
  return left || right;
}

}  // namespace

MeetPlan make_meet_plan(const LeafCut& cut, absl::Span<const Range> owned_leaves_by_rank) {
  MeetPlan plan;
  std::vector<int> source_of(cut.tree.nodes().size(), -1);
  for (std::size_t r = 0; r < owned_leaves_by_rank.size(); ++r) {
    int output = 0;
    for (int node : cut.tree.maximal_subtrees(owned_leaves_by_rank[r])) {
      source_of[static_cast<std::size_t>(node)] = static_cast<int>(plan.sources.size());
      plan.sources.push_back({static_cast<int>(r), output++});
    }
    plan.max_outputs = std::max(plan.max_outputs, output);
  }
  if (!cut.tree.nodes().empty()) emit(cut.tree, 0, source_of, plan);
  return plan;
}

}  // namespace quire
