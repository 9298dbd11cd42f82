// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace quire::utf8 {

inline constexpr std::size_t npos = static_cast<std::size_t>(-1);

// One decoded character: its code point and how many bytes it took. size 0: the bytes are not the
// beginning of a valid character; `incomplete` then says whether more bytes could make it one.
struct Decoded {
  char32_t code = 0;
  int size = 0;
  bool incomplete = false;
};
Decoded decode(absl::string_view text);

// Byte offset of the first character that is not valid (cut off included), or npos.
std::size_t first_invalid(absl::string_view text);

// Length of the prefix that can be shown now: everything but a character at the end whose
// remaining bytes may still come. Invalid bytes elsewhere are not held back.
std::size_t complete_prefix(absl::string_view text);

// Appends a scalar value as UTF-8; surrogates and values above U+10FFFF become U+FFFD.
void append(char32_t code, std::string* out);

// The text with every maximal invalid part replaced by U+FFFD, as browsers do.
std::string to_valid(absl::string_view text);

}  // namespace quire::utf8
