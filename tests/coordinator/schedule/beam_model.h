// A language model for beams whose logits are a hash of the prefix: make_beam_reference.py has the
// same one in Python. Token 0 is eos, `eos_logit` makes it likely or rare.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/schedule/beam_search.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

struct BeamModel {
  int vocab = 11;
  double eos_logit = 0.0;  // added to what the hash says
  double spread = 4.0;     // logits lie in [0, spread)
  std::uint64_t seed = 0;
  int num_levels = 1 << 24;  // different logits; few of them make ties

  // Natural log of the softmax, by token id.
  std::vector<float> logprobs(absl::Span<const TokenId> prefix) const {
    std::uint64_t hash = mix(seed);
    for (const TokenId token : prefix) hash = mix(hash ^ static_cast<std::uint64_t>(token));
    std::vector<double> logits;
    double total = 0.0;
    for (int token = 0; token < vocab; ++token) {
      const std::uint64_t bits = mix(hash + static_cast<std::uint64_t>(token)) >> 40;  // 24 of them
      const std::uint64_t level = bits * static_cast<std::uint64_t>(num_levels) >> 24;
      const double share = static_cast<double>(level) / num_levels;
      logits.push_back(spread * share + (token == 0 ? eos_logit : 0.0));
      total += std::exp(logits.back());
    }
    std::vector<float> out;
    for (const double logit : logits) out.push_back(static_cast<float>(logit - std::log(total)));
    return out;
  }

  // The `k` best, as a worker gives them.
  std::vector<TokenLogprob> best(absl::Span<const TokenId> prefix, int k) const {
    const std::vector<float> all = logprobs(prefix);
    std::vector<TokenLogprob> list;
    for (int token = 0; token < vocab; ++token) {
      list.push_back({token, all[static_cast<std::size_t>(token)]});
    }
    std::stable_sort(list.begin(), list.end(), [](const TokenLogprob& a, const TokenLogprob& b) {
      return a.logprob > b.logprob;
    });
    if (static_cast<int>(list.size()) > k) list.resize(static_cast<std::size_t>(k));
    return list;
  }
};

// Runs a search on the model, as a scheduler would: one sequence per open beam, forked by `parent`.
class BeamDriver {
 public:
  BeamDriver(const BeamModel& model, BeamSearch& search) : model_(model), search_(search) {}

  void step() {
    std::vector<std::vector<TokenLogprob>> lists;
    for (const std::vector<TokenId>& prefix : prefixes_) {
      lists.push_back(model_.best(prefix, search_.num_candidates()));
    }
    std::vector<BeamCandidates> candidates;
    for (const std::vector<TokenLogprob>& list : lists) candidates.push_back({list});
    std::vector<std::vector<TokenId>> next;
    for (const BeamSearch::Open& open : search_.step(candidates)) {
      next.push_back(prefixes_.at(static_cast<std::size_t>(open.parent)));
      next.back().push_back(open.token);
    }
    prefixes_ = std::move(next);
  }
  void run() {
    while (!search_.done()) step();
  }
  const std::vector<std::vector<TokenId>>& prefixes() const { return prefixes_; }

 private:
  const BeamModel& model_;
  BeamSearch& search_;
  std::vector<std::vector<TokenId>> prefixes_ = {{}};
};

}  // namespace quire::test
