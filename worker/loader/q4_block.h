// Writing one block of kQ4_Z: f16 scale, f16 zero, 16 bytes of nibbles (low ones are columns 0..15,
// high ones 16..31).
#pragma once

#include <cstdint>

#include "kernels/formats/half.h"

namespace quire {

inline constexpr std::size_t kQ4BlockBytes = 20;

inline std::byte* write_q4_header(float scale, int zero, std::byte* block) {
  store_half(block, scale);
  store_half(block + 2, static_cast<float>(zero));
  return block + 4;
}

// `words`: columns 0..7, 8..15, 16..23, 24..31, the lowest in the lowest nibble.
inline void write_q4_words(const std::uint32_t (&words)[4], std::byte* out) {
  for (int i = 0; i < 16; ++i) {
    const std::uint32_t low = words[i / 8] >> (4 * (i % 8)) & 15u;
    const std::uint32_t high = words[2 + i / 8] >> (4 * (i % 8)) & 15u;
    out[i] = static_cast<std::byte>(low | high << 4);
  }
}

}  // namespace quire
