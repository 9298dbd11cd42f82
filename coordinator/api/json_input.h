// JSON from the network: parsed with a depth limit and without recursion; errors name the byte.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire {

inline constexpr int kMaxJsonDepth = 64;

// InvalidArgument with the byte offset for: what is not JSON, invalid UTF-8, a byte order mark, a
// number that no double holds, a key that an object has twice, nesting beyond kMaxJsonDepth, and
// anything after the value.
absl::StatusOr<nlohmann::json> parse_json(absl::string_view text);

// Appends `text` (valid UTF-8) as a JSON string, with its quotes.
void append_json_string(std::string& out, absl::string_view text);

}  // namespace quire
