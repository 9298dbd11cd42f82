// What a request goes through before the loop has it, as far as nobody waits: checks, limits of
// tenants, the queue's gate; for one of an earlier life, whether its past can be believed. Any
// thread. Engine adds the waiting: for the journal, for the loop's word on a deadline.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/engine/admission.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/message.h"
#include "coordinator/engine/queue_gate.h"
#include "coordinator/engine/request.h"
#include "coordinator/engine/tenant_limits.h"

namespace quire {

class Intake {
 public:
  // No tenants: everybody is one. `limits` without the group's blocks.
  Intake(const RequestLimits& limits, const QueueGate::Limits& queue, std::vector<Tenant> tenants,
         Clock clock = steady_now);

  void set_first_request(RequestId id) { next_id_.store(id); }
  void on_ready(const GroupReady& ready);
  void on_step(const EngineStats& loop);  // its result has come

  struct Entered {
    Request request;           // with id and arrival
    bool is_doubtful = false;  // its deadline may not be kept: the loop is to be asked
    SpeedsSeen speeds;
  };
  // `loop`: as it said last. Errors: see Engine::submit.
  absl::StatusOr<Entered> enter(Request request, const EngineStats& loop);
  // One that had entered is refused after all; the loop has not counted it.
  void turn_away(std::int64_t prompt_tokens) { gate_.turn_away(prompt_tokens); }
  // Never refused for load. DataLoss or InvalidArgument: it cannot be one of this server.
  absl::StatusOr<ResumedRequest> resume(SavedRequest saved);
  void choice_ended(RequestId id, int choice) { tenant_limits_->choice_ended(id, choice); }

  bool has_had_group() const { return total_blocks_ > 0; }
  int max_model_len() const { return limits_.max_model_len; }
  absl::Duration retry_after(const EngineStats& loop) const;
  void add_refusals(EngineStats* stats) const;

 private:
  DeliverFn watch_first_token(DeliverFn deliver, std::int64_t prompt_tokens, absl::Time arrival);

  const RequestLimits limits_;
  const std::vector<Tenant> tenants_;
  const Clock clock_;
  std::mutex blocks_mutex_;            // guards blocks_
  std::map<int, int> blocks_;          // [seat] of the last group that was ready there
  std::atomic<int> total_blocks_ = 0;  // the most of them
  std::atomic<RequestId> next_id_ = 1;
  QueueGate gate_;
  const std::shared_ptr<TenantLimits> tenant_limits_;
};

}  // namespace quire
