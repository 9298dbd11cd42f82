// A model whose next token is a hash of all previous tokens, so the right output of every request
// is known. hash_worker.h runs plans with it.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "common/step.h"

namespace quire::test {

inline std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// The oracle. Choices of one request differ by their sample index, as with a real sampler.
struct HashModel {
  int vocab = 64;

  TokenId next(absl::Span<const TokenId> tokens, std::uint64_t seed, int sample_index) const {
    std::uint64_t hash = mix(seed) ^ mix(static_cast<std::uint64_t>(sample_index) + 77);
    for (const TokenId token : tokens) hash = mix(hash ^ static_cast<std::uint64_t>(token));
    return static_cast<TokenId>(hash % static_cast<std::uint64_t>(vocab));
  }
  // The sampled token, then `k` others.
  std::vector<TokenLogprob> logprobs(TokenId token, int position, int k) const {
    std::vector<TokenLogprob> list;
    for (int i = 0; i <= k; ++i) {
      list.push_back({(token + i) % vocab,
                      -0.5f * static_cast<float>(i) - 0.001f * static_cast<float>(position)});
    }
    return list;
  }
};

}  // namespace quire::test
