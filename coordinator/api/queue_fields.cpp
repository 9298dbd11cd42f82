// How a request waits: before whom, until when, and with whom it shares cached work.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/api/prepare_parts.h"

namespace quire {
namespace {

constexpr int kMaxPriority = 1000;
constexpr absl::Duration kForever = absl::Hours(24 * 366);  // so much time is no deadline
constexpr std::ptrdiff_t kMaxSaltCharacters = 1024;         // vLLM's

absl::Status set_priority(const EngineConfig& config, const GenerationInput& input,
                          Request& request) {
  if (!input.priority.has_value()) return absl::OkStatus();
  QUIRE_RETURN_IF_ERROR(check_range("priority", *input.priority, -kMaxPriority, kMaxPriority));
  if (*input.priority != 0 && config.scheduling_policy != "priority") {
    return absl::InvalidArgumentError(absl::StrCat(
        "`priority` is ", *input.priority,
        ", but the server does not run with --scheduling-policy priority; leave it out."));
  }
  request.priority = static_cast<int>(*input.priority);
  return absl::OkStatus();
}

absl::Status set_deadline(const GenerationInput& input, Request& request) {
  if (input.timeout_s.has_value() && input.deadline_ms.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("`timeout` and `", input.deadline_ms_name,
                                                   "` are both given; leave one of them out."));
  }
  absl::Duration time = absl::InfiniteDuration();
  if (input.timeout_s.has_value()) {
    if (!(*input.timeout_s > 0.0)) {
      return absl::InvalidArgumentError(absl::StrCat("`timeout` is ", *input.timeout_s,
                                                     "; it must be a number of seconds above 0."));
    }
    time = absl::Seconds(*input.timeout_s);
  }
  if (input.deadline_ms.has_value()) {
    if (*input.deadline_ms < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("`", input.deadline_ms_name, "` is ", *input.deadline_ms,
                       "; it must be at least 1 (milliseconds from now)."));
    }
    time = absl::Milliseconds(*input.deadline_ms);
  }
  if (time < kForever) request.deadline = input.arrival + time;
  return absl::OkStatus();
}

absl::Status set_salt(const GenerationInput& input, Request& request) {
  if (!input.cache_salt.has_value()) return absl::OkStatus();
  const std::string& salt = *input.cache_salt;
  const auto characters = std::count_if(salt.begin(), salt.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
  if (characters < 1 || characters > kMaxSaltCharacters) {
    return absl::InvalidArgumentError(absl::StrCat("`cache_salt` has ", characters,
                                                   " characters; it must have 1 to ",
                                                   kMaxSaltCharacters, "."));
  }
  request.cache_salt = salt;
  return absl::OkStatus();
}

}  // namespace

absl::Status set_queueing(const EngineConfig& config, const GenerationInput& input,
                          Request& request) {
  QUIRE_RETURN_IF_ERROR(set_priority(config, input, request));
  QUIRE_RETURN_IF_ERROR(set_deadline(input, request));
  return set_salt(input, request);
}

}  // namespace quire
