// Stored formats against values worked out by hand and against their own rounding bounds; Philox
// against the published known-answer vectors.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/formats/half.h"
#include "kernels/formats/table.h"
#include "kernels/sampling.h"

namespace quire {
namespace {

TEST(Half, EveryBitPatternSurvivesARoundTrip) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half h{static_cast<std::uint16_t>(bits)};
    const float x = to_float(h);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(to_float(to_half(x)))) << bits;
    } else {
      ASSERT_EQ(to_half(x).bits, bits);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(to_half(1.0f + 0x1p-11f).bits, 0x3c00);             // halfway, stays even
  EXPECT_EQ(to_half(1.0f + 3 * 0x1p-11f).bits, 0x3c02);         // halfway, goes to even
  EXPECT_EQ(to_half(1.0f + 0x1p-11f + 0x1p-20f).bits, 0x3c01);  // above halfway
  EXPECT_EQ(to_half(0x1p-25f).bits, 0x0000);                    // half of the smallest: to even
  EXPECT_EQ(to_half(0x1.8p-24f).bits, 0x0002);                  // subnormal halfway: to even
  EXPECT_EQ(to_half(65519.0f).bits, 0x7bff);
  EXPECT_EQ(to_half(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_half(-0.0f).bits, 0x8000);
}

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0f + 3 * 0x1p-8f).bits, 0x3f82);
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f + 0x1p-20f).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Formats, DecodeBlocksWrittenByHand) {
  std::byte q4_1[20] = {};
  store_half(q4_1, 0.5f);
  store_half(q4_1 + 2, -1.0f);
  q4_1[4] = std::byte{0x3f};       // element 0 = 15, element 16 = 3
  q4_1[4 + 15] = std::byte{0x80};  // element 15 = 0, element 31 = 8
  float out[32];
  formats::decode_row(Format::kQ4_1, q4_1, 32, out);
  EXPECT_EQ(out[0], 6.5f);
  EXPECT_EQ(out[16], 0.5f);
  EXPECT_EQ(out[15], -1.0f);
  EXPECT_EQ(out[31], 3.0f);

  std::byte q4_0[18] = {};
  store_half(q4_0, 0.25f);
  q4_0[2] = std::byte{0x0f};
  formats::decode_row(Format::kQ4_0, q4_0, 32, out);
  EXPECT_EQ(out[0], 1.75f);
  EXPECT_EQ(out[16], -2.0f);

  std::byte q8_0[34] = {};
  store_half(q8_0, 2.0f);
  q8_0[2 + 31] = static_cast<std::byte>(-128);
  formats::decode_row(Format::kQ8_0, q8_0, 32, out);
  EXPECT_EQ(out[31], -256.0f);
  EXPECT_EQ(out[0], 0.0f);
}

// The largest error of rounding to one step of the block, the half-precision scale included.
float error_bound(Format format, float amax) {
  switch (format) {
    case Format::kF32:
      return 0.0f;
    case Format::kF16:
      return amax * 0x1p-11f;
    case Format::kBf16:
      return amax * 0x1p-8f;
    case Format::kQ8_0:
      return amax / 127.0f * 0.6f;
    case Format::kQ4_0:
      return amax / 8.0f * 1.05f;  // the side with fewer steps clips by up to one
    case Format::kQ4_1:
      return 2.0f * amax / 15.0f * 0.6f;
  }
  return 0.0f;
}

TEST(Formats, EncodeThenDecodeStaysWithinOneStep) {
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  for (const Format format :
       {Format::kF32, Format::kF16, Format::kBf16, Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
    constexpr int kColumns = 96;
    std::vector<float> x(kColumns), y(kColumns);
    for (float& v : x) v = normal(random);
    std::vector<std::byte> row(row_bytes(format, kColumns));
    formats::encode_row(format, x.data(), kColumns, row.data());
    formats::decode_row(format, row.data(), kColumns, y.data());
    float amax = 0.0f;
    for (float v : x) amax = std::max(amax, std::fabs(v));
    for (int i = 0; i < kColumns; ++i) {
      EXPECT_LE(std::fabs(x[i] - y[i]), error_bound(format, amax))
          << traits(format).name << " element " << i;
    }
  }
}

TEST(Formats, AZeroBlockIsZero) {
  const std::vector<float> x(32, 0.0f);
  for (const Format format : {Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
    std::vector<std::byte> row(row_bytes(format, 32));
    std::vector<float> y(32, 1.0f);
    formats::encode_row(format, x.data(), 32, row.data());
    formats::decode_row(format, row.data(), 32, y.data());
    EXPECT_EQ(x, y) << traits(format).name;
  }
}

// Random123's kat_vectors for philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformIsInRangeAndEveryCoordinateMatters) {
  const float base = philox_uniform(1, 0, 0, DrawPurpose::kSample);
  EXPECT_NE(base, philox_uniform(2, 0, 0, DrawPurpose::kSample));
  EXPECT_NE(base, philox_uniform(1ull << 32 | 1, 0, 0, DrawPurpose::kSample));
  EXPECT_NE(base, philox_uniform(1, 1, 0, DrawPurpose::kSample));
  EXPECT_NE(base, philox_uniform(1, 0, 1, DrawPurpose::kSample));
  double sum = 0.0;
  for (std::uint32_t i = 0; i < 10000; ++i) {
    const float u = philox_uniform(99, 3, i, DrawPurpose::kSample);
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);  // 5 sigma
}

}  // namespace
}  // namespace quire
