// The one table of op cases: every backend runs each of them and is compared with the reference.
#pragma once

#include <vector>

#include "tests/kernels/harness.h"

namespace quire::test {

// Shapes of the row-wise ops: rms_norm, combine, swiglu.
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
