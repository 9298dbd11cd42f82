// One automaton per stop string, fed byte by byte; see stop_matcher.h.
#include "coordinator/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace quire {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  for (std::string& stop : stops) {
    if (!stop.empty()) patterns_.push_back(make_pattern(std::move(stop)));
  }
  std::stable_sort(patterns_.begin(), patterns_.end(), [](const Pattern& a, const Pattern& b) {
    return a.text.size() > b.text.size();
  });
}

StopMatcher::Pattern StopMatcher::make_pattern(std::string text) {
  Pattern pattern{std::move(text), {0, 0}, 0};
  for (std::size_t i = 1, border = 0; i < pattern.text.size(); ++i) {
    while (border > 0 && pattern.text[i] != pattern.text[border]) {
      border = pattern.fallback[border];
    }
    if (pattern.text[i] == pattern.text[border]) ++border;
    pattern.fallback.push_back(border);
  }
  return pattern;
}

void StopMatcher::advance(Pattern& pattern, char byte) {
  while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
    pattern.matched = pattern.fallback[pattern.matched];
  }
  if (pattern.text[pattern.matched] == byte) ++pattern.matched;
}

StopMatcher::Output StopMatcher::push(absl::string_view piece) {
  Output out;
  std::string text = std::move(held_);
  held_.clear();
  for (const char byte : piece) {
    text.push_back(byte);
    for (Pattern& pattern : patterns_) {
      advance(pattern, byte);
      if (pattern.matched < pattern.text.size() || out.stopped) continue;
      out.stopped = true;
      out.stop = pattern.text;
    }
    if (!out.stopped) continue;
    if (!include_stop_) text.resize(text.size() - out.stop.size());
    out.text = std::move(text);
    return out;
  }
  std::size_t held = 0;
  for (const Pattern& pattern : patterns_) held = std::max(held, pattern.matched);
  held_ = text.substr(text.size() - held);
  text.resize(text.size() - held);
  out.text = std::move(text);
  return out;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace quire
