// The engine's loop, a turn at a time: takes messages, applies results, plans and sends steps,
// delivers tokens. No thread and no clock of its own: whoever owns it calls turn() when there are
// messages or wake_time() has come. Everything here belongs to that one thread, but for stats().
//
// Invariant: what is open of a live request is what its home's scheduler knows of it.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/journal_port.h"
#include "coordinator/engine/lanes.h"
#include "coordinator/engine/live_requests.h"
#include "coordinator/engine/message.h"
#include "coordinator/engine/suspects.h"

namespace quire {

class StepLoop {
 public:
  // A plan that stays unanswered for longer than `deadline` says ends its epoch. A lane for every
  // group that may serve at once.
  StepLoop(const SchedulerConfig& config, const StepDeadline& deadline, Clock clock = steady_now,
           int num_lanes = 1);

  // See Engine. Before begin().
  void set_saved_prefixes(std::string index) { saved_prefixes_ = std::move(index); }
  // Who delivers what a turn brings, in order; without one it is delivered at the turn's end.
  void set_outlet(std::function<void(std::vector<Delivery>)> outlet) {
    outlet_ = std::move(outlet);
  }
  void set_events(EngineEvents events) { events_ = std::move(events); }
  void begin(GroupPort* group) { group_ = group; }
  // Takes the messages, in order, and does all that can be done now. They are used up.
  void turn(std::vector<Message>* inbox);
  absl::Time wake_time() const;  // when the next turn must come, also without messages
  // The last turn: every unfinished choice ends with kCancelled.
  void end(std::vector<Message>* inbox);

  EngineStats stats() const;                               // any thread
  absl::Status verify() const { return lanes_.verify(); }  // Internal: a broken invariant

 private:
  void distribute();
  void send_plans(Lane& lane);
  void send(Lane& lane, const StepPlan& plan, absl::Time now);
  void go_on_saving(Lane& lane);
  void expire(absl::Time now);

  void take_all(std::vector<Message>* inbox);
  void take(Request request);
  void take(DoubtfulRequest message);
  void take(ResumedRequest message);
  void take(const CancelRequest& message);
  void take(const StopChoice& message);
  void take(const GroupReady& ready);
  void take(StepResult result);
  void take(const GroupLost& lost);
  void take(SavePrefixes message);
  void take(AwaitIdle message);

  DeadlineNeeds needs_of(Request* request, const SpeedsSeen& speeds);
  void deliver(Gain gain, FinishReason ends);
  void release();
  // Ends every open choice of a request; its sequences leave the scheduler.
  void end_request(RequestId id, FinishReason reason, const std::string& error,
                   const std::string& code = "");
  void end_choice(LiveRequest* live, int choice, FinishReason reason, const std::string& error,
                  const std::string& code);
  void count(FinishReason reason);
  void note_numerics(LiveRequest* live);
  void end_epoch(int lane, EndCause cause, const std::string& why);
  void lose_group(int lane, EndCause cause);
  void count_recovered();
  void tell_idle();
  void publish();

  const Clock clock_;
  GroupPort* group_ = nullptr;
  std::function<void(std::vector<Delivery>)> outlet_;
  EngineEvents events_;
  Lanes lanes_;
  LiveRequests live_;
  Suspects suspects_;
  std::vector<Delivery> outbox_;  // what this turn brought, until the next plan is on its way
  std::function<void()> tell_idle_;
  // Of lost groups, for the next one.
  std::uint64_t to_recover_ = 0, to_recompute_ = 0;
  EngineStats counted_;
  absl::Time prompt_seen_ = absl::InfinitePast();  // the last one that was computed
  absl::Time waste_due_ = absl::InfinitePast();    // to be counted again: it walks over what runs
  std::string saved_prefixes_;                     // of an earlier life, until they are used
  std::shared_ptr<std::promise<std::string>> saving_;  // who waits for the index
  bool stopping_ = false;  // what the index says must stay true: no request runs any more

  mutable std::mutex stats_mutex_;  // guards stats_
  EngineStats stats_;
};

}  // namespace quire
