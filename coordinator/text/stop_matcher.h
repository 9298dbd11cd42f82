// Finds stop strings in streamed text, holding back only what may still become one. The match that
// ends first wins, as when generation halts the moment a stop string appears; of several that end
// at one place, the longest. So the result does not depend on how the text was cut into pieces.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire {

class StopMatcher {
 public:
  // Empty stop strings never match.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Output {
    std::string text;  // safe to show
    bool stopped = false;
    std::string stop;  // which one, when stopped
  };
  Output push(absl::string_view piece);  // nothing more may be pushed once stopped
  std::string finish();                  // the text held back, at the end of the sequence

 private:
  // A stop string as an automaton (Knuth, Morris, Pratt): how much of it the text now ends with.
  struct Pattern {
    std::string text;
    std::vector<std::size_t> fallback;  // by matched length: the longest border of that prefix
    std::size_t matched = 0;
  };
  static Pattern make_pattern(std::string text);
  static void advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;  // longest first
  bool include_stop_;
  std::string held_;
};

}  // namespace quire
