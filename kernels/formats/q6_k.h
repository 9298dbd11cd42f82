// q6_K: superblocks of 256 as 128 bytes of nibbles, 64 bytes of bit pairs, 16 x i8 scales (of 16
// columns each), f16 d; value = d * scale * (q - 32). Of each 128 columns, 64 bytes of nibbles hold
// columns 0..63 low and 64..127 high, and pair j of byte i of the 32 bytes of pairs belongs to
// column 32 j + i. Layout: GGUF; arithmetic: superblock.h.
#pragma once

#include "kernels/formats/superblock.h"

namespace quire::formats {

struct Q6_K {
  static constexpr int kBlock = Superblock::kColumns;
  static constexpr int kBytes = 210;

  static Superblock read(const std::byte* block) {
    Superblock s;
    std::memcpy(&s.d.bits, block + 208, 2);
    std::memcpy(s.scales.data(), block + 192, 16);
    for (std::size_t k = 0; k < Superblock::kColumns; ++k) {
      const std::size_t in_half = k % 128;
      const auto byte = static_cast<unsigned>(block[k / 128 * 64 + in_half % 64]);
      const auto pairs = static_cast<unsigned>(block[128 + k / 128 * 32 + in_half % 32]);
      const unsigned nibble = in_half < 64 ? byte & 15 : byte >> 4;
      const unsigned pair = pairs >> (2 * (in_half / 32)) & 3;
      s.numbers[k] = static_cast<std::int8_t>(static_cast<int>(nibble | pair << 4) - 32);
    }
    return s;
  }

  static void decode(const std::byte* block, float* out) {
    const Superblock s = read(block);
    const float d = to_float(s.d);
    for (std::size_t k = 0; k < Superblock::kColumns; ++k) {
      out[k] = d * static_cast<float>(s.scales[k / 16]) * static_cast<float>(s.numbers[k]);
    }
  }

  static void encode(const float* x, std::byte* block) {
    std::array<float, 16> steps;  // signed: the element of the largest magnitude becomes -32
    float largest = 0.0f;
    for (std::size_t part = 0; part < 16; ++part) {
      float extreme = 0.0f;
      for (std::size_t k = 16 * part; k < 16 * part + 16; ++k) {
        if (std::fabs(x[k]) > std::fabs(extreme)) extreme = x[k];
      }
      steps[part] = extreme / -32.0f;
      largest = std::max(largest, std::fabs(steps[part]));
    }
    store_half(block + 208, largest / 127.0f);
    const float d = load_half(block + 208);
    std::fill_n(block, 192, std::byte{0});
    for (std::size_t part = 0; part < 16; ++part) {
      const float scale =
          d == 0.0f ? 0.0f : std::clamp(std::nearbyint(steps[part] / d), -128.0f, 127.0f);
      block[192 + part] = static_cast<std::byte>(static_cast<std::int8_t>(scale));
      for (std::size_t k = 16 * part; k < 16 * part + 16; ++k) {
        const float unit = d * scale;
        const float number = unit == 0.0f ? 0.0f : std::nearbyint(x[k] / unit);
        write_number(k, static_cast<unsigned>(std::clamp(number, -32.0f, 31.0f) + 32.0f), block);
      }
    }
  }

 private:
  static void write_number(std::size_t k, unsigned q, std::byte* block) {
    const std::size_t in_half = k % 128;
    block[k / 128 * 64 + in_half % 64] |=
        static_cast<std::byte>((q & 15) << (in_half < 64 ? 0 : 4));
    block[128 + k / 128 * 32 + in_half % 32] |=
        static_cast<std::byte>(q >> 4 << (2 * (in_half / 32)));
  }
};

}  // namespace quire::formats
