// A model whose next token is a hash of all previous tokens, so the right output of every request
// is known: this is the oracle of every test without weights. hash_worker.h runs plans with it.
#pragma once

#include <algorithm>
#include <cmath>
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

struct HashModel {
  int vocab = 64;
  int period = 0;  // above 0: most tokens repeat the one so many before, and drafts come true

  static std::uint64_t hash(absl::Span<const TokenId> tokens, std::uint64_t start) {
    for (const TokenId token : tokens) start = mix(start ^ static_cast<std::uint64_t>(token));
    return start;
  }

  // Choices of one request differ by their sample index, as with a real sampler.
  TokenId next(absl::Span<const TokenId> tokens, std::uint64_t seed, int sample_index) const {
    const std::uint64_t h =
        hash(tokens, mix(seed) ^ mix(static_cast<std::uint64_t>(sample_index) + 77));
    const auto back = static_cast<std::size_t>(period);
    if (period > 0 && tokens.size() > back && (h >> 32) % 8 != 0) {
      return tokens[tokens.size() - back];
    }
    return static_cast<TokenId>(h % static_cast<std::uint64_t>(vocab));
  }

  // Of a sampled token: itself, then `k` others.
  std::vector<TokenLogprob> logprobs(TokenId token, int position, int k) const {
    std::vector<TokenLogprob> list;
    for (int i = 0; i <= k; ++i) {
      list.push_back({(token + i) % vocab,
                      -0.5f * static_cast<float>(i) - 0.001f * static_cast<float>(position)});
    }
    return list;
  }

  // What beams are searched over: the `k` best of a log-softmax over the vocabulary that depends on
  // the whole prefix. Best first, then the lower id; fewer if the vocabulary is smaller.
  std::vector<TokenLogprob> best(absl::Span<const TokenId> tokens, int k) const {
    const std::uint64_t h = hash(tokens, 991);
    std::vector<std::pair<double, TokenId>> weights(static_cast<std::size_t>(vocab));
    double sum = 0.0;
    for (TokenId v = 0; v < vocab; ++v) {
      const auto w = static_cast<double>((mix(h ^ mix(static_cast<std::uint64_t>(v))) >> 44) + 1);
      weights[static_cast<std::size_t>(v)] = {-w * w * w, v};
      sum += w * w * w;
    }
    const auto count = std::min(weights.size(), static_cast<std::size_t>(k));
    std::partial_sort(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(count),
                      weights.end());
    std::vector<TokenLogprob> list;
    for (std::size_t i = 0; i < count; ++i) {
      list.push_back({weights[i].second, static_cast<float>(std::log(-weights[i].first / sum))});
    }
    return list;
  }
};

}  // namespace quire::test
