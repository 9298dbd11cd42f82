// The engine's thread: takes messages, applies results, plans and sends steps, delivers tokens.
// Everything here belongs to that thread; other threads reach it by the mailbox and read stats().
//
// Invariant: what is open of a live request is what the scheduler knows of it.
#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/live_requests.h"
#include "coordinator/engine/mailbox.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

class StepLoop {
 public:
  // A plan that stays unanswered for `step_deadline` ends the epoch.
  StepLoop(SchedulerConfig config, absl::Duration step_deadline, Mailbox* mailbox);

  // Until the mailbox is closed; then every unfinished choice ends with kCancelled.
  void run(GroupPort* group);

  EngineStats stats() const;  // any thread

 private:
  absl::Time wake_time() const;
  void send_plans();
  void expire(absl::Time now);

  void take_all(std::vector<Message>* inbox);
  void take(Request request);
  void take(const CancelRequest& message);
  void take(const StopChoice& message);
  void take(const GroupReady& ready);
  void take(StepResult result);
  void take(const GroupLost& lost);

  void deliver(Gain gain, FinishReason ends);
  // Ends every open choice of a request; its sequences leave the scheduler.
  void end_request(RequestId id, FinishReason reason, const std::string& error);
  void end_choice(LiveRequest* live, int choice, FinishReason reason, const std::string& error);
  void count(FinishReason reason);
  void end_epoch(const std::string& why);
  void lose_group();
  void publish();

  const absl::Duration step_deadline_;
  Mailbox* const mailbox_;
  GroupPort* group_ = nullptr;
  Scheduler scheduler_;
  LiveRequests live_;
  std::deque<absl::Time> sent_;                     // of the plans in flight, oldest first
  absl::Time answer_due_ = absl::InfiniteFuture();  // of the oldest plan in flight
  EngineStats counted_;

  mutable std::mutex stats_mutex_;  // guards stats_
  EngineStats stats_;
};

}  // namespace quire
