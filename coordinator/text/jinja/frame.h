// Counts the interpreter's own recursion, so that no template can use up the stack.
#pragma once

#include "coordinator/text/jinja/budget.h"

namespace quire::jinja {

class Frame {
 public:
  explicit Frame(int& frames) : frames_(frames) {
    if (frames_ >= kMaxFrames) fail("the template is nested too deep");
    ++frames_;
  }
  ~Frame() { --frames_; }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

 private:
  int& frames_;
};

}  // namespace quire::jinja
