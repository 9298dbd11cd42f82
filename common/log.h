// Logging set-up, once in each main. Lines go to stderr as "time level program: message"; use
// spdlog's own functions (spdlog::info("...", ...)) to write them. Text that came from outside goes
// through log_text(), so that it cannot forge lines or move the cursor.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace quire {

// `program` is the prefix ("quire-worker 1"); `level` one of --log-level's names.
void start_log(const std::string& program, const std::string& level);

// Control bytes and what is not UTF-8 escaped; at most 512 bytes.
std::string log_text(absl::string_view text);

}  // namespace quire
