// A 64-bit hash for telling apart what honest processes hold (plans, checkpoint headers). It keeps
// nobody from forging anything.
#pragma once

#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"

namespace quire {

// FNV-1a over 8-byte words with a fold after each, chained by `seed`; the length is part of it.
inline std::uint64_t hash64(std::uint64_t seed, absl::string_view bytes) {
  constexpr std::uint64_t kPrime = 0x100000001b3;
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;
  };
  mix(seed);
  mix(bytes.size());
  std::uint64_t word = 0;
  for (; bytes.size() >= sizeof(word); bytes.remove_prefix(sizeof(word))) {
    std::memcpy(&word, bytes.data(), sizeof(word));
    mix(word);
  }
  word = 0;
  if (!bytes.empty()) std::memcpy(&word, bytes.data(), bytes.size());
  mix(word);
  return hash;
}

}  // namespace quire
