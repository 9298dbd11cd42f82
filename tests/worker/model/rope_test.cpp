// Rotary frequencies against values worked out from the papers' formulas.
#include "worker/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace quire {
namespace {

RopeSpec base() {
  RopeSpec rope;
  rope.dims = 8;
  rope.theta = 10000.0;
  return rope;
}

TEST(Rope, PlainFrequencies) {
  const std::vector<double> got = rope_frequencies(base());
  const double want[] = {1.0, 0.1, 0.01, 0.001};
  ASSERT_EQ(got.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i], want[i], 1e-12);
}

TEST(Rope, LinearDividesAll) {
  RopeSpec rope = base();
  rope.scaling = RopeScaling::kLinear;
  rope.factor = 4.0;
  EXPECT_NEAR(rope_frequencies(rope)[1], 0.025, 1e-12);
}

// Wavelengths 6.28, 62.8, 628, 6283 over an original context of 256 with cut-offs 64 and 256: kept,
// kept, stretched, stretched; a middle one is blended.
TEST(Rope, Llama3KeepsShortAndStretchesLong) {
  RopeSpec rope = base();
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = 8.0;
  rope.original_max_positions = 256.0;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  const std::vector<double> got = rope_frequencies(rope);
  EXPECT_NEAR(got[0], 1.0, 1e-12);
  EXPECT_NEAR(got[1], 0.1, 1e-12);
  EXPECT_NEAR(got[2], 0.01 / 8.0, 1e-12);
  EXPECT_NEAR(got[3], 0.001 / 8.0, 1e-12);
  rope.original_max_positions = 128.0;  // 62.8 lies between 32 and 128
  const double keep = (128.0 / 62.83185307179586 - 1.0) / 3.0;
  EXPECT_NEAR(rope_frequencies(rope)[1], 0.1 * (keep + (1.0 - keep) / 8.0), 1e-9);
}

TEST(Rope, YarnInterpolatesOnlySlowPairs) {
  RopeSpec rope = base();
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 4.0;
  rope.original_max_positions = 64.0;
  const std::vector<double> got = rope_frequencies(rope);
  // pair of 32 turns: 8 ln(64 / (32 * 2 pi)) / (2 ln 1e4) < 0 -> 0; of 1 turn: 1.008 -> 2.
  EXPECT_NEAR(got[0], 1.0, 1e-12);
  EXPECT_NEAR(got[1], 0.1 * (0.5 + 0.5 / 4.0), 1e-12);
  EXPECT_NEAR(got[2], 0.01 / 4.0, 1e-12);
  EXPECT_NEAR(rope_attention_factor(rope), 0.1 * std::log(4.0) + 1.0, 1e-12);
  rope.attention_factor = 1.5;
  EXPECT_EQ(rope_attention_factor(rope), 1.5);
}

TEST(Rope, FrequencyFactorsDivide) {
  RopeSpec rope = base();
  rope.freq_factors = {1.0f, 2.0f, 4.0f, 8.0f};
  EXPECT_NEAR(rope_frequencies(rope)[3], 0.001 / 8.0, 1e-12);
}

TEST(Rope, TableIsCosineAndSineOfPositionTimesFrequency) {
  const std::vector<float> table = rope_table(base(), 50);
  ASSERT_EQ(table.size(), 50u * 4 * 2);
  EXPECT_FLOAT_EQ(table[(49 * 4 + 1) * 2], static_cast<float>(std::cos(4.9)));
  EXPECT_FLOAT_EQ(table[(49 * 4 + 1) * 2 + 1], static_cast<float>(std::sin(4.9)));
}

}  // namespace
}  // namespace quire
