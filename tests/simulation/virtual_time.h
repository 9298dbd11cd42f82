// The clock of a simulation and what is to happen at which time of it. One thread; what is due at
// the same time happens in the order in which it was asked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace quire::test {

class VirtualTime {
 public:
  static absl::Time start() { return absl::FromUnixSeconds(1'700'000'000); }
  absl::Time now() const { return now_; }

  void at(absl::Time time, std::function<void()> run) {
    events_.push_back({std::max(time, now_), next_++, std::move(run)});
    std::push_heap(events_.begin(), events_.end(), later);
  }
  void after(absl::Duration wait, std::function<void()> run) { at(now_ + wait, std::move(run)); }

  // Lets the next event happen. False if none is due before `until`: it is that time then.
  bool step(absl::Time until) {
    if (events_.empty() || events_.front().time > until) {
      now_ = until;
      return false;
    }
    std::pop_heap(events_.begin(), events_.end(), later);
    const Event event = std::move(events_.back());
    events_.pop_back();
    num_at_once_ = event.time == now_ ? num_at_once_ + 1 : 0;
    now_ = event.time;
    event.run();
    return true;
  }
  // Something asks to be called again and again at the same time.
  bool stands_still() const { return num_at_once_ > 100'000; }

 private:
  struct Event {
    absl::Time time;
    std::uint64_t number = 0;
    std::function<void()> run;
  };
  static bool later(const Event& a, const Event& b) {
    return a.time != b.time ? a.time > b.time : a.number > b.number;
  }

  absl::Time now_ = start();
  std::uint64_t next_ = 0;
  int num_at_once_ = 0;
  std::vector<Event> events_;  // a heap
};

}  // namespace quire::test
