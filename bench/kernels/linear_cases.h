// What bench_linear measures: the linear shapes of three models with the sums one rank makes of
// them, as matrices of random bits in the layout the CPU multiplies. A shape has as many copies as
// do not fit any cache, and a multiplication goes to the next one: weights come from memory, as in
// a step of a model.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/shard.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/pack.h"
#include "kernels/host_memory.h"

namespace quire::bench {

struct LinearShape {
  std::string name;
  int rows = 0;
  int columns = 0;
  // Row-parallel shapes are summed leaf by leaf: by heads in groups, or by parts of the ffn.
  int kv_groups = 0;
  int heads_per_group = 0;
  bool is_ffn = false;
};

struct LinearModel {
  std::string name;
  int layers = 0;
  std::vector<LinearShape> layer;  // in order of use
  LinearShape vocabulary;
};

inline LinearModel make_model(const std::string& name, int layers, int hidden, int groups,
                              int per_group, int head_dim, int ffn, int vocabulary) {
  const int width = groups * per_group * head_dim;
  return {name,
          layers,
          {{"qkv", width + 2 * groups * head_dim, hidden},
           {"o", hidden, width, groups, per_group},
           {"gate_up", 2 * ffn, hidden},
           {"down", hidden, ffn, 0, 0, true}},
          {"vocabulary", vocabulary, hidden}};
}

// The sums of a rank that owns the whole width.
inline SumPlan sum_plan(const LinearShape& shape, Format format) {
  LeafCut cut;
  int size = 0;
  if (shape.is_ffn) {
    size = ffn_leaf_size(shape.columns, traits(format).block);
    cut.tree = ReductionTree::over_leaves((shape.columns + size - 1) / size);
  } else if (shape.kv_groups > 0) {
    size = shape.columns / (shape.kv_groups * shape.heads_per_group);
    cut.tree = ReductionTree::over_groups(
        std::vector<int>(static_cast<std::size_t>(shape.kv_groups), shape.heads_per_group));
  } else {
    return SumPlan::whole(shape.columns);
  }
  for (int begin = 0; begin < shape.columns; begin += size) {
    cut.leaves.push_back({begin, std::min(begin + size, shape.columns)});
  }
  return make_sum_plan(cut, {0, cut.tree.num_leaves()});
}

// Any bits will do for integers; exponents are kept small so that no float is odd.
inline void fill_random(std::byte* data, std::size_t bytes) {
  std::minstd_rand random(7);
  std::vector<std::byte> some(std::size_t{1} << 20);
  for (std::byte& b : some) b = static_cast<std::byte>(random() >> 8 & 0x3f);
  for (std::size_t at = 0; at < bytes; at += some.size()) {
    std::memcpy(data + at, some.data(), std::min(some.size(), bytes - at));
  }
}

inline std::byte* allocate(HostMemory& memory, std::size_t bytes) {
  const auto data = memory.allocate(bytes, "a benchmark");
  QUIRE_CHECK(data.ok());
  return static_cast<std::byte*>(*data);
}

inline std::vector<LinearModel> linear_models() {
  return {make_model("smollm2-135m", 30, 576, 3, 3, 64, 1536, 49152),
          make_model("llama-3.2-1b", 16, 2048, 8, 4, 64, 8192, 128256),
          make_model("llama-3-8b", 32, 4096, 8, 4, 128, 14336, 128256)};
}

// Without data.
inline Weight shaped_matrix(const LinearShape& shape, Format format, cpu::Isa isa) {
  Weight weight;
  weight.format = format;
  weight.rows = shape.rows;
  weight.columns = shape.columns;
  weight.sum = sum_plan(shape, format);
  const auto packed = cpu::packed_shape(
      {format, shape.columns, {{nullptr, 0, shape.rows}}, weight.sum}, isa, false);
  QUIRE_CHECK(packed.ok());
  weight.input = packed->input;
  weight.bytes = packed->bytes;
  return weight;
}

// Freed with `memory`. Filled as it lies packed; nothing is transposed.
inline Weight random_matrix(const LinearShape& shape, Format format, cpu::Isa isa,
                            HostMemory& memory) {
  Weight weight = shaped_matrix(shape, format, isa);
  weight.data = allocate(memory, weight.bytes);
  fill_random(static_cast<std::byte*>(weight.data), weight.bytes);
  return weight;
}

// Random activations for a weight.
inline Activation random_input(const Weight& weight, int tokens, HostMemory& memory) {
  const std::size_t bytes =
      cpu::activation_stride(weight.input, weight.columns) * static_cast<std::size_t>(tokens);
  std::byte* data = allocate(memory, bytes);
  fill_random(data, bytes);
  return {data, weight.input, tokens, weight.columns};
}

}  // namespace quire::bench
