// One row of logits as runs of at most kVocabSegment ids, and the choices made on it.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/vector_ops.h"
#include "kernels/sampling.h"

namespace quire::cpu {

struct LogitRun {
  const float* x = nullptr;
  int size = 0;
  TokenId first_id = 0;
};

// Ids with their logits, in id order.
struct Candidates {
  std::vector<float> logits;
  std::vector<TokenId> ids;
};

class RowSampler {
 public:
  // `runs` in id order, not empty.
  RowSampler(const VectorOps& ops, std::vector<LogitRun> runs);

  // False where a logit is NaN or the largest one infinite: then nothing of what follows means
  // much.
  bool has_number() const { return !is_nan_ && std::isfinite(highest_); }
  TokenId best() const { return best_; }
  TokenId draw(const SampleRow& row) const;
  // The logprob of `token`, then the `k` best by (logprob descending, id ascending).
  std::vector<TokenLogprob> logprobs(TokenId token, int k) const;

 private:
  TokenId draw_from_all(const SampleRow& row, double uniform) const;
  TokenId draw_filtered(const SampleRow& row, double uniform) const;
  Candidates gather(float lowest) const;
  // Candidates among which the k largest are; k at most the number of ids.
  Candidates gather_largest(int k) const;
  // Candidates that hold a mass of at least `share` of all ids at or above `lowest`. Stores that
  // whole mass.
  Candidates gather_mass(float share, float temperature, float lowest, double& total) const;
  double mass(float temperature, float lowest) const;
  float logit_of(TokenId id) const;

  const VectorOps& ops_;
  std::vector<LogitRun> runs_;
  std::vector<float> run_highest_;
  int num_ids_ = 0;
  bool is_nan_ = false;  // some logit
  float highest_ = -std::numeric_limits<float>::infinity();
  TokenId best_ = 0;
};

}  // namespace quire::cpu
