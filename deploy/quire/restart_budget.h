// How often something that keeps dying is started again, and after which pause. Only lives in a row
// in which nothing advanced count: pauses of 0, 0.5, 1, 2 ... 30 s, and at most five lives. Pure.
#pragma once

#include <chrono>
#include <optional>

namespace quire {

class RestartBudget {
 public:
  // The life that runs did what it is there for: whatever failed before it is forgotten.
  void advanced() { failed_lives_ = 0; }
  // A life has ended. The pause before the next one; nothing: the budget is spent.
  std::optional<std::chrono::milliseconds> next_pause();
  int failed_lives() const { return failed_lives_; }  // in a row

 private:
  int failed_lives_ = 0;
};

}  // namespace quire
