// All matrices of a model in their order of use with the sums that follow, in one of three ways.
// Every thread has a matrix of its own for its part of each: the same kernel in every way.
#pragma once

#include <array>
#include <map>
#include <utility>
#include <vector>

#include "bench/kernels/linear_cases.h"
#include "bench/kernels/team.h"
#include "kernels/cpu/ops.h"
#include "kernels/host_memory.h"

namespace quire::bench {

enum class Way {
  kLeaves,  // the contract: o and down are summed leaf by leaf
  kWhole,   // one leaf, K in one piece
  kSplit,   // as kWhole, and threads that N gives too few rows divide K among them
};

// Random bytes, the same for equal keys: what is equal in two ways lies at one address in both, so
// that none is faster by its pages.
class SharedBytes {
 public:
  using Key = std::array<std::size_t, 3>;
  std::byte* get(const Key& key, std::size_t bytes);

 private:
  HostMemory memory_;
  std::map<std::pair<Key, std::size_t>, std::byte*> data_;
};

class ContractStep {
 public:
  // kSplit: a thread has `least_rows` rows of N, or K is divided.
  ContractStep(const LinearModel& model, Format format, Way way, cpu::Isa isa, int threads,
               int least_rows, SharedBytes& bytes);

  // Before run: M, with room for most_floats() at `out`.
  void set_tokens(int tokens, float* out);
  std::size_t most_floats(int tokens) const;
  // By every thread of a team.
  void run(int thread, Team& team) const;

 private:
  struct Product {
    Weight weight;      // rows 0: none
    int piece = 0;      // of K
    int first_row = 0;  // of N
  };
  struct Stage {
    int rows = 0;    // N
    int pieces = 1;  // of K
    bool is_row_parallel = false;
    std::vector<Product> products;  // of each thread
    std::vector<const float*> partials;
    std::vector<int> program;
    float* sum = nullptr;  // to which the partial sums are added; null: none are
  };

  void add(LinearShape shape, Format format);
  int pieces_of(const LinearShape& shape) const;
  void multiply(std::size_t stage, int thread) const;
  void combine(const Stage& stage, int thread) const;

  const Way way_;
  const cpu::Isa isa_;
  const int threads_, least_rows_;
  SharedBytes& bytes_;
  std::vector<Stage> stages_;
  std::map<int, Activation> inputs_;  // by K: they are the same in every layer
  std::vector<float> residual_;
  float* out_ = nullptr;
  int tokens_ = 0;
};

}  // namespace quire::bench
