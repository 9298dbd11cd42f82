// What q4_K, q5_K and q6_K have in common: 256 columns, in parts of 32 (q6_K: of 16) with a small
// whole scale each, under one f16 factor. A Superblock is one of them taken apart; the formats'
// headers read and write its bytes, kernels repack its numbers. Layouts: GGUF.
//
// q4_K, q5_K: value = (d * scale) * number - dmin * minimum. q6_K: value = (d * scale) * number.
// All products are exact in fp32, so a decoder's order of them does not matter.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/formats/half.h"

namespace quire::formats {

struct Superblock {
  static constexpr int kColumns = 256;
  static constexpr int kPart = 32;
  static constexpr int kParts = kColumns / kPart;

  Half d, dmin;
  std::array<std::int8_t, 16> scales = {};         // of 32 columns, 0..63; q6_K: of 16 columns
  std::array<std::uint8_t, 8> minimums = {};       // of 32 columns, 0..63; q6_K: none
  std::array<std::int8_t, kColumns> numbers = {};  // 0..15, 0..31, -32..31
};

// The 12 bytes of q4_K and q5_K that hold 8 scales and 8 minimums of 6 bits. Bytes 0..3 and 4..7
// begin with the low ones of parts 0..3; parts 4..7 have their low four bits in bytes 8..11 and
// their high two at the top of the bytes before.
inline void read_scales(const std::byte* bytes, Superblock& s) {
  const auto byte = [bytes](std::size_t i) { return static_cast<unsigned>(bytes[i]); };
  for (std::size_t part = 0; part < 4; ++part) {
    s.scales[part] = static_cast<std::int8_t>(byte(part) & 63);
    s.minimums[part] = static_cast<std::uint8_t>(byte(part + 4) & 63);
    s.scales[part + 4] = static_cast<std::int8_t>((byte(part + 8) & 15) | byte(part) >> 6 << 4);
    s.minimums[part + 4] =
        static_cast<std::uint8_t>(byte(part + 8) >> 4 | byte(part + 4) >> 6 << 4);
  }
}
inline void write_scales(const Superblock& s, std::byte* bytes) {
  for (std::size_t part = 0; part < 4; ++part) {
    const auto low = static_cast<unsigned>(s.scales[part]);
    const auto high = static_cast<unsigned>(s.scales[part + 4]);
    const unsigned low_minimum = s.minimums[part];
    const unsigned high_minimum = s.minimums[part + 4];
    bytes[part] = static_cast<std::byte>(low | high >> 4 << 6);
    bytes[part + 4] = static_cast<std::byte>(low_minimum | high_minimum >> 4 << 6);
    bytes[part + 8] = static_cast<std::byte>((high & 15) | (high_minimum & 15) << 4);
  }
}

inline void decode_with_minimums(const Superblock& s, float* out) {
  const float d = to_float(s.d);
  const float dmin = to_float(s.dmin);
  for (std::size_t k = 0; k < Superblock::kColumns; ++k) {
    const std::size_t part = k / Superblock::kPart;
    const float scale = d * static_cast<float>(s.scales[part]);
    const float minimum = dmin * static_cast<float>(s.minimums[part]);
    out[k] = scale * static_cast<float>(s.numbers[k]) - minimum;
  }
}

// Numbers 0..largest: each part spans from its lowest element (at most zero) to its highest.
inline Superblock quantize_with_minimums(const float* x, int largest) {
  Superblock s;
  std::array<float, Superblock::kParts> steps, depths;
  for (std::size_t part = 0; part < Superblock::kParts; ++part) {
    const float* begin = x + part * Superblock::kPart;
    const auto [lowest, highest] = std::minmax_element(begin, begin + Superblock::kPart);
    depths[part] = -std::min(0.0f, *lowest);
    steps[part] = std::max(0.0f, *highest + depths[part]) / static_cast<float>(largest);
  }
  s.d = to_half(*std::max_element(steps.begin(), steps.end()) / 63.0f);
  s.dmin = to_half(*std::max_element(depths.begin(), depths.end()) / 63.0f);
  const float d = to_float(s.d);
  const float dmin = to_float(s.dmin);
  const auto small = [](float value, float unit, int most) {
    return unit == 0.0f ? 0 : std::clamp(static_cast<int>(std::nearbyint(value / unit)), 0, most);
  };
  for (std::size_t part = 0; part < Superblock::kParts; ++part) {
    s.scales[part] = static_cast<std::int8_t>(small(steps[part], d, 63));
    s.minimums[part] = static_cast<std::uint8_t>(small(depths[part], dmin, 63));
    const float scale = d * static_cast<float>(s.scales[part]);
    const float minimum = dmin * static_cast<float>(s.minimums[part]);
    for (std::size_t k = part * Superblock::kPart; k < (part + 1) * Superblock::kPart; ++k) {
      s.numbers[k] = static_cast<std::int8_t>(small(x[k] + minimum, scale, largest));
    }
  }
  return s;
}

}  // namespace quire::formats
