// q5_K: superblocks of 256 as f16 d, f16 dmin, 12 bytes of scales, 32 bytes of fifth bits (bit j of
// byte i: column 32 j + i), then q4_K's 128 bytes of nibbles. Layout: GGUF; arithmetic:
// superblock.h.
#pragma once

#include "kernels/formats/superblock.h"

namespace quire::formats {

struct Q5_K {
  static constexpr int kBlock = Superblock::kColumns;
  static constexpr int kBytes = 176;

  static Superblock read(const std::byte* block) {
    Superblock s;
    std::memcpy(&s.d.bits, block, 2);
    std::memcpy(&s.dmin.bits, block + 2, 2);
    read_scales(block + 4, s);
    for (std::size_t k = 0; k < Superblock::kColumns; ++k) {
      const auto fifths = static_cast<unsigned>(block[16 + k % 32]);
      const auto byte = static_cast<unsigned>(block[48 + k / 64 * 32 + k % 32]);
      const unsigned nibble = k % 64 < 32 ? byte & 15 : byte >> 4;
      s.numbers[k] = static_cast<std::int8_t>(nibble | (fifths >> (k / 32) & 1) << 4);
    }
    return s;
  }
  static void decode(const std::byte* block, float* out) { decode_with_minimums(read(block), out); }

  static void encode(const float* x, std::byte* block) {
    const Superblock s = quantize_with_minimums(x, 31);
    std::memcpy(block, &s.d.bits, 2);
    std::memcpy(block + 2, &s.dmin.bits, 2);
    write_scales(s, block + 4);
    for (std::size_t i = 0; i < 32; ++i) {
      unsigned fifths = 0;
      for (std::size_t j = 0; j < 8; ++j) {
        fifths |= static_cast<unsigned>(s.numbers[32 * j + i] >> 4) << j;
      }
      block[16 + i] = static_cast<std::byte>(fifths);
    }
    for (std::size_t i = 0; i < 128; ++i) {
      const std::size_t k = i / 32 * 64 + i % 32;
      block[48 + i] = static_cast<std::byte>((s.numbers[k] & 15) | (s.numbers[k + 32] & 15) << 4);
    }
  }
};

}  // namespace quire::formats
