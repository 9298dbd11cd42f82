// What other threads tell the engine's loop.
#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/step.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/queue_gate.h"
#include "coordinator/engine/request.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

struct CancelRequest {
  RequestId request = 0;
};
struct StopChoice {
  RequestId request = 0;
  int choice = 0;
};
struct GroupLost {
  EpochId epoch = 0;
  EndCause cause = EndCause::kRankGone;
};
// Ends every request; then moves the prefix cache into the offload stores and answers with its
// index (empty: there is none).
struct SavePrefixes {
  std::shared_ptr<std::promise<std::string>> index;
};
// `tell` is called once, as soon as no request is unfinished.
struct AwaitIdle {
  std::function<void()> tell;
};
// The loop's answer to a thread that waits for it, unless it has given up.
class Verdict {
 public:
  // False, and the answer is not taken: nobody waits any more.
  bool give(absl::Status answer) {
    std::lock_guard lock(mutex_);
    if (given_up_) return false;
    answer_ = std::move(answer);
    news_.notify_one();
    return true;
  }
  // Ok if none comes within `patience`.
  absl::Status wait(absl::Duration patience) {
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                   [this] { return answer_.has_value(); });
    given_up_ = !answer_.has_value();
    if (given_up_) return absl::OkStatus();
    // A copy of its own: ThreadSanitizer does not see how copies of one Status share a count.
    return absl::Status(answer_->code(), answer_->message());
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable news_;
  std::optional<absl::Status> answer_;
  bool given_up_ = false;
};
// One that is only taken if its deadline can be kept.
struct DoubtfulRequest {
  Request request;
  SpeedsSeen speeds;
  std::shared_ptr<Verdict> verdict;
};
// One that an earlier coordinator had accepted.
struct ResumedRequest {
  Request request;
  std::vector<ChoicePast> past;  // [choice]
  std::uint64_t numerics = 0;    // see SavedRequest
};
using Message = std::variant<Request, DoubtfulRequest, ResumedRequest, CancelRequest, StopChoice,
                             GroupReady, StepResult, GroupLost, SavePrefixes, AwaitIdle>;

}  // namespace quire
