// Made-up prompts of the cache's tests.
#pragma once

#include <numeric>
#include <vector>

#include "common/ids.h"

namespace quire {

inline constexpr const char* kScope = "someone";

inline std::vector<TokenId> counting(int from, int count) {
  std::vector<TokenId> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

}  // namespace quire
