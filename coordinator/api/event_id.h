// The ids of server-sent events: up to where an answer has been given. A client that lost its
// connection sends the last one back (Last-Event-ID) and gets what comes after it.
//
//   NAME:12,7.        of answer NAME twelve tokens of choice 0 and all seven of choice 1
//   NAME:12.,7.;usage and the usage after them
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

struct EventId {
  struct Choice {
    int num_tokens = 0;
    bool ended = false;
  };
  std::string name;
  std::vector<Choice> choices;
  bool usage = false;
};

// More choices than this have no ids: each event would carry a number for every one.
inline constexpr std::size_t kMaxEventChoices = 64;

void append_event_id(std::string& out, const EventId& id);
// InvalidArgument where it is none of ours.
absl::StatusOr<EventId> parse_event_id(absl::string_view text);

}  // namespace quire
