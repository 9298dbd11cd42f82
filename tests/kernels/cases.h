// The one table of op cases: every backend runs each of them and is compared with the reference.
#pragma once

#include <vector>

#include "kernels/weight.h"
#include "tests/kernels/harness.h"

namespace quire::test {

// Shapes of the row-wise ops: rms_norm, combine, gated units.
struct RowCase {
  int rows;
  int columns;
};
inline const std::vector<RowCase>& row_cases() {
  static const std::vector<RowCase> cases = {
      {1, 8},   {1, 16},  {2, 17},  {3, 40},   {1, 64},   {33, 96},
      {7, 200}, {1, 576}, {5, 576}, {2, 1536}, {1, 1000}, {4, 4096},
  };
  return cases;
}

// Products of `tokens` rows of input with an N x K matrix, of any format that may be cut where the
// case cuts it.
struct LinearOpCase {
  std::string name;
  int rows;
  int columns;
  int tokens;
  SumPlan sum = {};      // empty: one leaf
  bool bias = false;     // only with one output
  int first_column = 0;  // in a superblock; other formats begin there all the same

  SumPlan plan() const { return sum.leaves.empty() ? SumPlan::whole(columns) : sum; }
  bool fits(Format format) const {
    const int cut = traits(format).cut;
    bool whole = columns % cut == 0;
    for (const Range& leaf : sum.leaves) {
      whole = whole && leaf.begin % cut == 0 && leaf.end % cut == 0;
    }
    return whole;
  }
};
inline const std::vector<LinearOpCase>& linear_cases() {
  // Five leaves in two subtrees, ((0 + 1) + (2 + 3)) and 4; three leaves in three.
  static const SumPlan two{
      {{0, 64}, {64, 128}, {128, 192}, {192, 224}, {224, 352}}, {0, 1, 0, 2, 0}, 2};
  static const SumPlan three{{{0, 32}, {32, 64}, {64, 160}}, {0, 0, 0}, 3};
  static const SumPlan odd{{{0, 20}, {20, 40}, {40, 41}, {41, 100}}, {0, 1, 0, 0}, 3};
  static const std::vector<LinearOpCase> cases = {
      {"one row, one token", 1, 32, 1},
      {"two superblocks", 40, 512, 1, {}, true},
      {"odd rows, 2 tokens", 33, 288, 2},
      {"4 tokens", 70, 96, 4, {}, true},
      {"8 tokens", 9, 256, 8},
      {"16 tokens", 65, 320, 16},
      {"17 tokens", 31, 256, 17, {}, true},
      {"64 tokens", 96, 64, 64},
      {"512 tokens", 34, 96, 512},
      {"subtrees, one token", 35, 352, 1, two},
      {"subtrees, 5 tokens", 35, 352, 5, two},
      {"subtrees, 40 tokens", 35, 352, 40, two},
      {"every leaf a subtree", 6, 160, 3, three},
      {"every leaf a subtree, 20 tokens", 6, 160, 20, three},
      {"cut inside a superblock", 41, 352, 1, two, false, 96},
      {"cut inside a superblock, 18 tokens", 41, 160, 18, {}, true, 224},
      {"odd columns", 37, 45, 3, {}, true},
      {"odd columns, 33 tokens", 12, 45, 33},
      {"odd leaves", 10, 100, 2, odd},
      {"odd leaves, 30 tokens", 10, 100, 30, odd},
  };
  return cases;
}

inline const std::vector<AttentionCase>& attention_cases() {
  static const std::vector<AttentionCase> cases = {
      {.name = "one head, one token", .lengths = {1}},
      {.name = "SmolLM2",
       .num_heads = 9,
       .num_kv_heads = 3,
       .group_heads = 3,
       .interleaved = true,
       .dtype = DType::kF16,
       .lengths = {300, 1, 17, 64, 65}},
      {.name = "SmolLM2, rank 1 of 2: begins inside a group",
       .num_heads = 4,
       .num_kv_heads = 2,
       .group_heads = 3,
       .first_head = 5,
       .first_kv_head = 1,
       .interleaved = true,
       .dtype = DType::kF16,
       .lengths = {40, 270}},
      {.name = "stories260K: tiny heads",
       .num_heads = 8,
       .num_kv_heads = 4,
       .head_dim = 8,
       .group_heads = 2,
       .rope_dims = 8,
       .interleaved = true,
       .lengths = {70, 5}},
      {.name = "head of 4",
       .num_heads = 4,
       .num_kv_heads = 2,
       .head_dim = 4,
       .group_heads = 2,
       .rope_dims = 4,
       .lengths = {33}},
      {.name = "head of 16, blocks of 32",
       .num_heads = 6,
       .num_kv_heads = 2,
       .head_dim = 16,
       .group_heads = 3,
       .block_size = 32,
       .rope_dims = 16,
       .dtype = DType::kBf16,
       .lengths = {31, 32, 33, 100}},
      {.name = "head of 80, half of it rotated, blocks of 64",
       .num_heads = 2,
       .num_kv_heads = 2,
       .head_dim = 80,
       .block_size = 64,
       .rope_dims = 40,
       .dtype = DType::kF16,
       .lengths = {63, 64, 129}},
      {.name = "head of 128, group of 8, three splits",
       .num_heads = 8,
       .num_kv_heads = 1,
       .head_dim = 128,
       .group_heads = 8,
       .rope_dims = 128,
       .dtype = DType::kBf16,
       .lengths = {600, 257, 256}},
      {.name = "window of 70, soft cap",
       .num_heads = 6,
       .num_kv_heads = 2,
       .group_heads = 3,
       .dtype = DType::kF16,
       .window = 70,
       .soft_cap = 1.5f,
       .lengths = {300, 1, 69, 70, 71, 135}},
      {.name = "window of 290, begins inside a split",
       .num_heads = 4,
       .num_kv_heads = 2,
       .group_heads = 2,
       .dtype = DType::kBf16,
       .window = 290,
       .lengths = {700, 291}},
      {.name = "window of 1",
       .num_heads = 2,
       .num_kv_heads = 1,
       .head_dim = 20,
       .group_heads = 2,
       .rope_dims = 20,
       .window = 1,
       .lengths = {130}},
      {.name = "soft cap, blocks of 32",
       .num_heads = 2,
       .num_kv_heads = 2,
       .head_dim = 80,
       .block_size = 32,
       .rope_dims = 80,
       .dtype = DType::kBf16,
       .soft_cap = 0.5f,
       .lengths = {260}},
      {.name = "head of 20",
       .num_heads = 3,
       .num_kv_heads = 3,
       .head_dim = 20,
       .rope_dims = 20,
       .lengths = {50}},
  };
  return cases;
}

}  // namespace quire::test
