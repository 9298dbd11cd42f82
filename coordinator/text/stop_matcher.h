// Finds stop strings in streamed text, holding back only what may still become one. The earliest
// match wins; among matches at one place the longest.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire {

class StopMatcher {
 public:
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Output {
    std::string text;  // safe to show
    bool stopped = false;
    std::string stop;  // which one, when stopped
  };
  Output push(absl::string_view piece);  // nothing more may be pushed once stopped
  std::string finish();                  // the text held back, at the end of the sequence

 private:
  std::vector<std::string> stops_;
  bool include_stop_;
  std::string held_;
};

}  // namespace quire
