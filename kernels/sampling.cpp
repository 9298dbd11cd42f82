// The adjustment of logits, and Philox4x32-10: counter-based random numbers (Salmon, Moraes, Dror,
// Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11). A draw is a function of its
// coordinates and nothing else.
#include "kernels/sampling.h"

#include <limits>

namespace quire {
namespace {

float adjusted(float logit, const LogitEntry& entry, const LogitAdjustment& row) {
  float x = logit + entry.bias;
  if (entry.count >= 0) x = x > 0.0f ? x / row.repetition : x * row.repetition;
  if (entry.count > 0) {
    x = x - row.frequency * static_cast<float>(entry.count);
    x = x - row.presence;
  }
  return x;
}

void mask(const std::uint32_t* allowed, absl::Span<float> logits) {
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const bool may_stay = (allowed[id / 32] >> (id % 32) & 1) != 0;
    logits[id] = may_stay ? logits[id] : -std::numeric_limits<float>::infinity();
  }
}

}  // namespace

void adjust_logits(const LogitAdjustment& adjustment, absl::Span<float> logits) {
  if (adjustment.allowed != nullptr) mask(adjustment.allowed, logits);
  for (const LogitEntry& entry : adjustment.entries) {
    float& x = logits[static_cast<std::size_t>(entry.token)];
    x = adjusted(x, entry, adjustment);
  }
}

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

float philox_uniform(std::uint64_t seed, std::uint32_t sample_index, std::uint32_t position,
                     DrawPurpose purpose) {
  const auto words =
      philox4x32({position, sample_index, static_cast<std::uint32_t>(purpose), 0},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return static_cast<float>(words[0] >> 8) * 0x1p-24f;
}

}  // namespace quire
