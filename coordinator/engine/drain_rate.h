// How fast work leaves a queue: exponentially weighted rates of requests and of their prompts'
// tokens, over the time in which something waited. While nothing waits the rate is the clients' and
// not the server's, so that time does not count. Pure: the clock is the caller's.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace quire {

// What has left the queue since the start, and what waits in it now.
struct QueueCount {
  std::uint64_t left_requests = 0;
  std::uint64_t left_tokens = 0;
  int waiting = 0;
};

class DrainRate {
 public:
  // Older observations weigh 1/e after `memory` of further busy time.
  explicit DrainRate(absl::Duration memory = absl::Seconds(30)) : memory_(memory) {}

  void observe(const QueueCount& count, absl::Time now);

  // Per second; nothing until half a second with a queue has been seen. Requests count the next one
  // as leaving now, so that the rate is never zero; tokens need some requests that have left.
  std::optional<double> requests() const;
  std::optional<double> tokens() const;

 private:
  absl::Duration memory_;
  bool observed_ = false;
  QueueCount last_;
  absl::Time last_time_;
  // Decayed sums.
  double busy_s_ = 0, left_requests_ = 0, left_tokens_ = 0;
};

// How fast prompts were computed that had to wait for nobody: from arrival to first token, so that
// cached prefixes and the way there are in it. By the size of the prompt (powers of two), because
// short prompts say little about long ones. The fastest of late counts: what is refused for want of
// time could really not be done. What is not seen again is soon forgotten: those that are refused
// bring no news, so that one slow moment must not refuse for ever.
class PrefillSpeed {
 public:
  void observe(std::int64_t tokens, absl::Duration took, absl::Time now);

  // Tokens per second; nothing unless a few prompts of about this size, or longer ones, were seen
  // in the last seconds.
  std::optional<double> of(std::int64_t tokens, absl::Time now) const;

 private:
  static constexpr int kSizes = 32;
  struct Size {
    double speed = 0;
    int seen = 0;
    absl::Time last = absl::InfinitePast();
  };
  Size sizes_[kSizes];  // [log2 of the tokens]
};

}  // namespace quire
