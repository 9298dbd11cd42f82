// GPT-2's spelling of bytes as printable characters: every byte has a character of its own, so a
// byte-level vocabulary can be stored as text ("Ġthe" is " the").
#pragma once

#include <array>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace quire::byte_level {

// The character that spells each byte.
const std::array<char32_t, 256>& alphabet();

// The bytes a spelled token stands for; nullopt if it has a character outside the alphabet.
std::optional<std::string> to_bytes(absl::string_view spelled);

}  // namespace quire::byte_level
