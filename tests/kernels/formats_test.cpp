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

TEST(Formats, DecodeEightBitFloatsWrittenByHand) {
  const auto decode = [](int bits) {
    const std::byte byte{static_cast<unsigned char>(bits)};
    float x = 0.0f;
    formats::decode_row(Format::kF8E4M3, &byte, 1, &x);
    return x;
  };
  EXPECT_EQ(decode(0x00), 0.0f);
  EXPECT_EQ(decode(0x01), 0x1p-9f);
  EXPECT_EQ(decode(0x07), 7 * 0x1p-9f);
  EXPECT_EQ(decode(0x08), 0x1p-6f);
  EXPECT_EQ(decode(0x38), 1.0f);
  EXPECT_EQ(decode(0x3c), 1.5f);
  EXPECT_EQ(decode(0xc1), -2.25f);
  EXPECT_EQ(decode(0x7e), 448.0f);
  EXPECT_TRUE(std::isnan(decode(0x7f)));
  EXPECT_TRUE(std::isnan(decode(0xff)));
}

TEST(Formats, EveryEightBitFloatSurvivesARoundTripAndNearestWins) {
  std::vector<float> values;  // 0x00 .. 0x7e, growing
  for (int bits = 0; bits < 127; ++bits) {
    const std::byte stored{static_cast<unsigned char>(bits)};
    std::byte again{};
    float x = 0.0f;
    formats::decode_row(Format::kF8E4M3, &stored, 1, &x);
    formats::encode_row(Format::kF8E4M3, &x, 1, &again);
    EXPECT_EQ(again, stored);
    if (bits > 0) {
      EXPECT_GT(x, values.back());
    }
    values.push_back(x);
  }
  const auto nearest = [](float x) {
    std::byte stored{};
    formats::encode_row(Format::kF8E4M3, &x, 1, &stored);
    return static_cast<int>(stored);
  };
  for (int bits = 0; bits < 126; ++bits) {
    const float middle =
        (values[static_cast<std::size_t>(bits)] + values[static_cast<std::size_t>(bits) + 1]) / 2;
    EXPECT_EQ(nearest(middle), bits % 2 == 0 ? bits : bits + 1) << "ties to even";
    EXPECT_EQ(nearest(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(nearest(-std::nextafter(middle, 500.0f)), 0x80 | (bits + 1));
  }
  EXPECT_EQ(nearest(1e6f), 0x7e);
  EXPECT_EQ(nearest(std::nanf("")), 0x7f);
}

TEST(Formats, DecodeSuperblocksWrittenByHand) {
  std::vector<float> out(256);
  std::vector<std::byte> q4_k(144);
  store_half(q4_k.data(), 0.5f);
  store_half(q4_k.data() + 2, 0.25f);
  q4_k[4] = std::byte{3 | 2 << 6};   // scale of part 0: 3; high bits of part 4's
  q4_k[8] = std::byte{5 | 1 << 6};   // minimum of part 0: 5; high bits of part 4's
  q4_k[12] = std::byte{9 | 7 << 4};  // part 4: scale 9 + 32, minimum 7 + 16
  q4_k[16 + 2] = std::byte{0xc4};    // columns 2 and 34
  q4_k[16 + 64] = std::byte{0x0b};   // column 128, of part 4
  formats::decode_row(Format::kQ4_K, q4_k.data(), 256, out.data());
  EXPECT_EQ(out[2], 0.5f * 3 * 4 - 0.25f * 5);
  EXPECT_EQ(out[0], -0.25f * 5);
  EXPECT_EQ(out[34], 0.0f) << "part 1 has scale 0";
  EXPECT_EQ(out[128], 0.5f * 41 * 11 - 0.25f * 23);

  std::vector<std::byte> q5_k(176);
  store_half(q5_k.data(), 2.0f);
  q5_k[4 + 1] = std::byte{63};       // scale of part 1
  q5_k[16 + 7] = std::byte{1 << 1};  // fifth bit of column 39
  q5_k[48 + 7] = std::byte{0x60};    // its nibble
  formats::decode_row(Format::kQ5_K, q5_k.data(), 256, out.data());
  EXPECT_EQ(out[39], 2.0f * 63 * 22);
  EXPECT_EQ(out[7], 0.0f);

  std::vector<std::byte> q6_k(210);
  store_half(q6_k.data() + 208, 0.125f);
  q6_k[192 + 9] = static_cast<std::byte>(-128);  // scale of columns 144..159
  q6_k[64 + 16] = std::byte{0x0f};               // nibble of column 144
  q6_k[128 + 32 + 16] = std::byte{0x02};         // its high bits
  q6_k[192 + 15] = std::byte{1};                 // columns 240..255
  q6_k[64 + 63] = std::byte{0x30};               // column 255
  q6_k[128 + 32 + 31] = std::byte{0xc0};
  formats::decode_row(Format::kQ6_K, q6_k.data(), 256, out.data());
  EXPECT_EQ(out[144], 0.125f * -128 * (47 - 32));
  EXPECT_EQ(out[145], 0.125f * -128 * -32);
  EXPECT_EQ(out[255], 0.125f * (51 - 32));
  EXPECT_EQ(out[0], 0.0f);
}

TEST(Formats, DecodeZeroPointsWrittenByHand) {
  std::byte q4_z[20] = {};
  store_half(q4_z, 0.5f);
  store_half(q4_z + 2, 16.0f);
  q4_z[4] = std::byte{0xf3};
  float out[32];
  formats::decode_row(Format::kQ4_Z, q4_z, 32, out);
  EXPECT_EQ(out[0], 0.5f * (3 - 16));
  EXPECT_EQ(out[16], 0.5f * (15 - 16));
  EXPECT_EQ(out[1], -8.0f);
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
    case Format::kF8E4M3:
      return amax * 0x1p-4f;
    case Format::kI8:
      return 0.5f;
    case Format::kQ4_Z:
      return 2.0f * amax / 15.0f * 1.05f;  // the zero point is rounded too
    case Format::kQ4_K:                    // steps and depths are in 63ths of the largest
      return 2.0f * amax / 15.0f * 0.6f + amax / 63.0f * 1.5f;
    case Format::kQ5_K:
      return 2.0f * amax / 31.0f * 0.6f + amax / 63.0f * 1.5f;
    case Format::kQ6_K:
      return amax / 32.0f * 1.1f + amax / 127.0f * 0.6f;
  }
  return 0.0f;
}

std::vector<Format> all_formats() {
  std::vector<Format> formats;
  for (std::size_t i = 0; i < std::size(kFormatTraits); ++i) {
    formats.push_back(static_cast<Format>(i));
  }
  return formats;
}

std::vector<float> random_numbers(std::size_t count, float spread) {
  std::mt19937 random(17);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

TEST(Formats, EncodeThenDecodeStaysWithinOneStep) {
  for (const Format format : all_formats()) {
    constexpr int kColumns = 768;
    const std::vector<float> x = random_numbers(kColumns, format == Format::kI8 ? 30.0f : 1.0f);
    std::vector<float> y(kColumns);
    std::vector<std::byte> row(row_bytes(format, kColumns));
    formats::encode_row(format, x.data(), kColumns, row.data());
    formats::decode_row(format, row.data(), kColumns, y.data());
    float amax = 0.0f;
    for (float v : x) amax = std::max(amax, std::fabs(v));
    for (std::size_t i = 0; i < kColumns; ++i) {
      EXPECT_LE(std::fabs(x[i] - y[i]), error_bound(format, amax))
          << traits(format).name << " element " << i;
    }
  }
}

TEST(Formats, AZeroBlockIsZero) {
  for (const Format format : all_formats()) {
    const std::vector<float> x(256, 0.0f);
    std::vector<std::byte> row(row_bytes(format, 256));
    std::vector<float> y(256, 1.0f);
    formats::encode_row(format, x.data(), 256, row.data());
    formats::decode_row(format, row.data(), 256, y.data());
    EXPECT_EQ(x, y) << traits(format).name;
  }
}

TEST(Formats, ColumnsAreCutWhereTheFormatAllows) {
  constexpr int kColumns = 768;
  for (const Format format : all_formats()) {
    const std::vector<float> x = random_numbers(kColumns, 1.0f);
    std::vector<std::byte> row(row_bytes(format, kColumns));
    std::vector<float> whole(kColumns);
    formats::encode_row(format, x.data(), kColumns, row.data());
    formats::decode_row(format, row.data(), kColumns, whole.data());
    for (const auto& [first, columns] : {std::pair{0, 768},
                                         {32, 64},
                                         {224, 64},
                                         {96, 416},
                                         {256, 320},
                                         {512, 32},
                                         {736, 32},
                                         {288, 480},
                                         {64, 0}}) {
      std::vector<float> part(static_cast<std::size_t>(columns));
      formats::decode_columns(format, row.data(), first, columns, part.data());
      const auto begin = whole.begin() + first;
      EXPECT_EQ(part, std::vector<float>(begin, begin + columns))
          << traits(format).name << ' ' << first << ' ' << columns;
    }
  }
  EXPECT_EQ(span_bytes(Format::kQ4_K, 224, 288), 2u * 144u) << "both headers";
  EXPECT_EQ(span_bytes(Format::kQ4_K, 256, 320), 144u);
  EXPECT_EQ(span_bytes(Format::kF8E4M3, 3, 10), 7u);
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
