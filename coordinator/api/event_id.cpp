#include "coordinator/api/event_id.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace quire {

void append_event_id(std::string& out, const EventId& id) {
  out.append(id.name);
  char before = ':';
  for (const EventId::Choice& choice : id.choices) {
    out.push_back(before);
    absl::StrAppend(&out, choice.num_tokens);
    if (choice.ended) out.push_back('.');
    before = ',';
  }
  if (id.usage) out.append(";usage");
}

absl::StatusOr<EventId> parse_event_id(absl::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      "`Last-Event-ID` is not the id of an event of this server; send the last one that came, as "
      "it "
      "came.");
  EventId id;
  id.usage = absl::ConsumeSuffix(&text, ";usage");
  const std::size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return bad;
  id.name = std::string(text.substr(0, colon));
  for (absl::string_view word : absl::StrSplit(text.substr(colon + 1), ',')) {
    EventId::Choice choice;
    choice.ended = absl::ConsumeSuffix(&word, ".");
    if (!absl::SimpleAtoi(word, &choice.num_tokens) || choice.num_tokens < 0 ||
        id.choices.size() == kMaxEventChoices) {
      return bad;
    }
    id.choices.push_back(choice);
  }
  return id;
}

}  // namespace quire
