// The one-answer contract of matrix products: an output element has the same bits whatever the
// batch, the number of threads, its place in the matrix and the tensor-parallel degree; and, but
// for bf16 dot products, whatever the instruction set.
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "kernels/weight.h"
#include "tests/kernels/linear_test_support.h"

namespace quire::test {
namespace {

using cpu::Isa;

// Runs `check` for every format, instruction set and arithmetic.
void for_all(const std::function<void(Isa, Format, bool float32)>& check) {
  for (const Isa isa : available_isas()) {
    for (const Format format : kAllFormats) {
      for (const bool float32 : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << cpu::name_of(isa) << ' ' << traits(format).name << ' ' << float32);
        check(isa, format, float32);
      }
    }
  }
}

int width_of(Format format) {
  return traits(format).block == 1 ? 77 : 160;
}

TEST(LinearBitsTest, ATokenIsTheSameInEveryBatch) {
  for_all([](Isa isa, Format format, bool float32) {
    constexpr int kAll = 105;
    const int columns = width_of(format), rows = 83;
    const Stored m = random_matrix(format, rows, columns, 1);
    const Packed packed = pack_matrix(m.source(SumPlan::whole(columns)), isa, float32);
    const auto k = static_cast<std::size_t>(columns);
    const std::vector<float> x = random_floats(kAll * k, 2);
    const Input all = make_input(packed.weight.input, x.data(), k, kAll, columns);
    const std::vector<float> expected = multiply(isa, packed, all.activation);
    for (const int tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 24, 33, 63, 97, 98, 99, 101}) {
      for (const int first : {0, kAll - tokens}) {
        const Input some =
            make_input(packed.weight.input, x.data() + static_cast<std::size_t>(first) * k, k,
                       tokens, columns);
        const std::vector<float> got = multiply(isa, packed, some.activation);
        ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin() + first * rows)) << tokens;
      }
    }
  });
}

// So wide that the room for packed activations holds two tokens only.
TEST(LinearBitsTest, ATokenOfAWideMatrixIsTheSameInEveryBatch) {
  const int columns = 160'000, rows = 33;
  const auto k = static_cast<std::size_t>(columns);
  const Stored m = random_matrix(Format::kQ4_1, rows, columns, 11);
  const std::vector<float> x = random_floats(9 * k, 12);
  for (const Isa isa : available_isas()) {
    const Packed packed = pack_matrix(m.source(SumPlan::whole(columns)), isa);
    const Input all = make_input(packed.weight.input, x.data(), k, 9, columns);
    const std::vector<float> expected = multiply(isa, packed, all.activation);
    for (int t = 0; t < 9; ++t) {
      const Input one = make_input(packed.weight.input, x.data() + static_cast<std::size_t>(t) * k,
                                   k, 1, columns);
      const std::vector<float> got = multiply(isa, packed, one.activation);
      ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin() + t * rows)) << t;
    }
  }
}

TEST(LinearBitsTest, ARowIsTheSameForAnyThreadsAndPlace) {
  for_all([](Isa isa, Format format, bool float32) {
    const int columns = width_of(format), rows = 150;
    const Stored m = random_matrix(format, rows, columns, 3);
    const Packed packed = pack_matrix(m.source(SumPlan::whole(columns)), isa, float32);
    const auto k = static_cast<std::size_t>(columns);
    constexpr int kMany = 77, tokens = 7;  // up to 5 threads divide the many, and 16 the rows
    const std::vector<float> x = random_floats(kMany * k, 4);
    const Input many = make_input(packed.weight.input, x.data(), k, kMany, columns);
    const std::vector<float> expected = multiply(isa, packed, many.activation);
    const Input in = make_input(packed.weight.input, x.data(), k, tokens, columns);
    const std::vector<float> few(expected.begin(), expected.begin() + tokens * rows);
    for (const int threads : {2, 3, 5, 16}) {
      ASSERT_EQ(multiply(isa, packed, in.activation, threads), few) << threads;
      ASSERT_EQ(multiply(isa, packed, many.activation, threads), expected) << threads;
    }
    MatrixSource tail = m.source(SumPlan::whole(columns));
    tail.parts[0].data += 101 * m.stride();
    tail.parts[0].rows = rows - 101;
    const Packed moved = pack_matrix(tail, isa, float32);
    const std::vector<float> got = multiply(isa, moved, in.activation);
    for (int t = 0; t < tokens; ++t) {
      for (int n = 0; n < tail.parts[0].rows; ++n) {
        ASSERT_EQ(got[static_cast<std::size_t>(t * tail.parts[0].rows + n)],
                  expected[static_cast<std::size_t>(t * rows + 101 + n)]);
      }
    }
  });
}

// The sum at `node` from the partial sums of the ranks, by the tree alone.
std::vector<float> combine(const ReductionTree& tree, int node,
                           const std::map<int, std::vector<float>>& partials) {
  if (const auto found = partials.find(node); found != partials.end()) return found->second;
  const ReductionTree::Node& n = tree.nodes()[static_cast<std::size_t>(node)];
  std::vector<float> sum = combine(tree, n.left, partials);
  const std::vector<float> upper = combine(tree, n.right, partials);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += upper[i];
  return sum;
}

// Leaves of `size` columns (the last one shorter by `missing`) under a tree over `groups`.
LeafCut make_cut(const std::vector<int>& groups, int size, int missing) {
  LeafCut cut;
  cut.tree = ReductionTree::over_groups(groups);
  for (int i = 0; i < cut.tree.num_leaves(); ++i) {
    const int last = i + 1 == cut.tree.num_leaves() ? missing : 0;
    cut.leaves.push_back({i * size, (i + 1) * size - last});
  }
  return cut;
}

// What the ranks whose leaves end at `ends` compute together. [T][N]
std::vector<float> sum_over_ranks(Isa isa, bool float32, const Stored& m, const LeafCut& cut,
                                  const std::vector<int>& ends, const std::vector<float>& x,
                                  int tokens) {
  std::map<int, std::vector<float>> partials;
  int begin = 0;
  for (const int end : ends) {
    const Range owned{begin, end};
    begin = end;
    if (owned.empty()) continue;
    const Range columns{cut.leaves[static_cast<std::size_t>(owned.begin)].begin,
                        cut.leaves[static_cast<std::size_t>(owned.end - 1)].end};
    const Packed packed = pack_matrix(m.slice(make_sum_plan(cut, owned), columns), isa, float32);
    const Input in = make_input(packed.weight.input, x.data() + columns.begin,
                                static_cast<std::size_t>(m.columns), tokens, columns.size());
    const std::vector<float> out = multiply(isa, packed, in.activation, 2);
    const std::vector<int> subtrees = cut.tree.maximal_subtrees(owned);
    const std::ptrdiff_t size = tokens * m.rows;
    for (std::size_t o = 0; o < subtrees.size(); ++o) {
      const auto first = out.begin() + static_cast<std::ptrdiff_t>(o) * size;
      partials[subtrees[o]].assign(first, first + size);
    }
  }
  return combine(cut.tree, 0, partials);
}

TEST(LinearBitsTest, AnyNumberOfRanksGivesTheSameSum) {
  for_all([](Isa isa, Format format, bool float32) {
    const bool plain = traits(format).block == 1;
    const std::vector<LeafCut> cuts = {make_cut({3, 3, 3}, 64, 0), make_cut({12}, 128, 32),
                                       make_cut({4, 4}, plain ? 12 : 32, 0),
                                       make_cut({2, 3}, plain ? 13 : 32, plain ? 4 : 0)};
    for (const LeafCut& cut : cuts) {
      const int columns = cut.leaves.back().end, leaves = cut.tree.num_leaves();
      const Stored m = random_matrix(format, 37, columns, 5);
      for (const int tokens : {1, 7}) {
        const std::vector<float> x = random_floats(static_cast<std::size_t>(tokens * columns), 6);
        const std::vector<float> expected =
            sum_over_ranks(isa, float32, m, cut, {leaves}, x, tokens);
        for (const std::vector<int>& ends : {std::vector<int>{leaves / 2, leaves},
                                             {1, leaves - 1, leaves},
                                             {0, leaves - 2, leaves},
                                             {2, 3, 4, leaves},
                                             {1, 3, leaves, leaves}}) {
          ASSERT_EQ(sum_over_ranks(isa, float32, m, cut, ends, x, tokens), expected);
        }
        const ActivationLayout layout =
            cpu::packed_shape(m.source(SumPlan::whole(columns)), isa, float32)->input;
        const Input in =
            make_input(layout, x.data(), static_cast<std::size_t>(columns), tokens, columns);
        ASSERT_LT(worst_error(m, in, expected), columns / 8.0 + 4.0);
      }
    }
  });
}

TEST(LinearBitsTest, InstructionSetsAgreeButForBf16) {
  for (const Isa isa : available_isas()) {
    if (isa == Isa::kAvx2) continue;
    for (const Format format : kAllFormats) {
      for (const bool float32 : {false, true}) {
        const bool rounds_otherwise = isa == Isa::kAvx512;  // VDPBF16PS
        if (format == Format::kBf16 && !float32 && rounds_otherwise) continue;
        const LeafCut cut = make_cut({3, 4}, 96, 0);
        const Stored m = random_matrix(format, 50, 7 * 96, 7);
        const std::vector<float> x = random_floats(5 * 7 * 96, 8);
        EXPECT_EQ(sum_over_ranks(Isa::kAvx2, float32, m, cut, {7}, x, 5),
                  sum_over_ranks(isa, float32, m, cut, {7}, x, 5))
            << cpu::name_of(isa) << ' ' << traits(format).name;
      }
    }
  }
}

}  // namespace
}  // namespace quire::test
