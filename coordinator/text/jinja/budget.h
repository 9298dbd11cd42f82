// What one rendering may cost. Every piece of work is charged before it is done, so a hostile
// template ends with an error, not with the memory or the patience of the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coordinator/text/jinja/error.h"

namespace quire::jinja {

inline constexpr int kMaxNesting = 100;               // of blocks, parentheses, values, macro calls
inline constexpr int kMaxFrames = 600;                // of the interpreter's own recursion
inline constexpr std::int64_t kMaxSteps = 1'000'000;  // nodes evaluated, items or 256 bytes touched
inline constexpr std::size_t kMaxTextBytes = 1 << 20;  // of the output, and of any one string

class Budget {
 public:
  void steps(std::size_t count = 1) {
    left_ -= static_cast<std::int64_t>(count);
    if (left_ < 0) fail("the template takes more than ", kMaxSteps, " steps");
  }
  // For reading or building a text of this size.
  void text(std::size_t bytes) {
    if (bytes > kMaxTextBytes) fail("a text grows beyond ", kMaxTextBytes, " bytes");
    steps(bytes / 256);
  }

 private:
  std::int64_t left_ = kMaxSteps;
};

}  // namespace quire::jinja
