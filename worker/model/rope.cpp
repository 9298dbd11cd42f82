// Rotary frequencies under every kind of context scaling.
#include "worker/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace quire {
namespace {

// llama3: wavelengths above the original context are stretched by `factor`, those well below it
// are kept, and between the two cut-offs the frequencies are blended.
double llama3_frequency(const RopeSpec& rope, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double longest_kept = rope.original_max_positions / rope.high_freq_factor;
  const double shortest_stretched = rope.original_max_positions / rope.low_freq_factor;
  if (wavelength < longest_kept) return frequency;
  if (wavelength > shortest_stretched) return frequency / rope.factor;
  const double keep = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                      (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - keep) * frequency / rope.factor + keep * frequency;
}

// The (fractional) pair index whose wave makes `turns` turns over the original context.
double yarn_pair_of(const RopeSpec& rope, double turns) {
  return rope.dims * std::log(rope.original_max_positions / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.theta));
}

// yarn: pairs below `low` extrapolate (keep their frequency), those above `high` interpolate.
double yarn_frequency(const RopeSpec& rope, int pair, double frequency) {
  const double low = std::max(std::floor(yarn_pair_of(rope, rope.beta_fast)), 0.0);
  double high = std::min(std::ceil(yarn_pair_of(rope, rope.beta_slow)), rope.dims - 1.0);
  if (high == low) high += 0.001;
  const double interpolate = std::clamp((pair - low) / (high - low), 0.0, 1.0);
  return frequency / rope.factor * interpolate + frequency * (1.0 - interpolate);
}

double scaled_frequency(const RopeSpec& rope, int pair, double frequency) {
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return frequency;
    case RopeScaling::kLinear:
      return frequency / rope.factor;
    case RopeScaling::kLlama3:
      return llama3_frequency(rope, frequency);
    case RopeScaling::kYarn:
      return yarn_frequency(rope, pair, frequency);
  }
  return frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const RopeSpec& rope) {
  std::vector<double> frequencies;
  for (int pair = 0; pair < rope.dims / 2; ++pair) {
    const double plain = std::pow(rope.theta, -2.0 * pair / rope.dims);
    double frequency = scaled_frequency(rope, pair, plain);
    if (!rope.freq_factors.empty()) {
      frequency /= static_cast<double>(rope.freq_factors[static_cast<std::size_t>(pair)]);
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

double rope_attention_factor(const RopeSpec& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1.0;
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  return rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
}

std::vector<float> rope_table(const RopeSpec& rope, int max_positions) {
  const std::vector<double> frequencies = rope_frequencies(rope);
  const double scale = rope_attention_factor(rope);
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(max_positions) * frequencies.size() * 2);
  for (int position = 0; position < max_positions; ++position) {
    for (const double frequency : frequencies) {
      const double angle = position * frequency;
      table.push_back(static_cast<float>(std::cos(angle) * scale));
      table.push_back(static_cast<float>(std::sin(angle) * scale));
    }
  }
  return table;
}

}  // namespace quire
