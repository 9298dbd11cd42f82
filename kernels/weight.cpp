// The summation plan of one rank: a walk of its maximal subtrees; what every backend refuses.
#include "kernels/weight.h"

#include "absl/strings/str_cat.h"
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

absl::Status check_source(const MatrixSource& source) {
  const FormatTraits& format = traits(source.format);
  QUIRE_CHECK_LE(0, source.first_column);
  QUIRE_CHECK_LT(source.first_column, format.block);
  for (const int columns : {source.columns, source.first_column}) {
    if (columns % format.cut == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(format.name, " keeps ", format.cut, " columns together, but this matrix ",
                     columns == source.columns ? "has " : "begins after ", columns,
                     " columns; use another format or another cut."));
  }
  for (const Range& leaf : source.sum.leaves) {
    QUIRE_CHECK_LE(0, leaf.begin);
    QUIRE_CHECK_LE(leaf.begin, leaf.end);
    QUIRE_CHECK_LE(leaf.end, source.columns);
    if (leaf.begin % format.cut == 0 && leaf.end % format.cut == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "columns ", leaf.begin, " to ", leaf.end, " are summed on their own, but a cut at column ",
        leaf.begin % format.cut != 0 ? leaf.begin : leaf.end, " splits a ", format.name,
        " block of ", format.cut,
        "; use a format without blocks, or one whose blocks divide this width."));
  }
  for (const MatrixPart& part : source.parts) {
    QUIRE_CHECK(part.row_scales == nullptr || has_row_scales(source.format));
  }
  return absl::OkStatus();
}

}  // namespace quire
