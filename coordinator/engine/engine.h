// The step loop: drain mailbox, plan, send, apply, deliver. One thread owns all of it; other
// threads leave messages in the mailbox.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config.h"
#include "common/model_spec.h"
#include "coordinator/engine/request.h"
#include "coordinator/engine/tenant_limits.h"

namespace quire {

// Numbers for /metrics and logs, copied under a lock once a step.
struct EngineStats {
  bool ready = false;  // a group is attached and its dummy step has passed
  EpochId epoch = 0;
  std::uint64_t steps = 0;
  int running = 0, waiting = 0;
  int total_blocks = 0, used_blocks = 0;
  std::uint64_t prompt_tokens = 0, generation_tokens = 0, preemptions = 0;
  std::uint64_t finished_stop = 0, finished_length = 0, finished_abort = 0, finished_error = 0;
  std::uint64_t stale_replies_dropped = 0, group_losses = 0;
  // In tokens of prompts: looked up in the prefix cache, found there.
  std::uint64_t prefix_queries = 0, prefix_hits = 0;
  std::uint64_t offload_saved_blocks = 0, offload_loaded_blocks = 0;
  std::uint64_t drafts = 0, draft_tokens = 0, accepted_draft_tokens = 0;
  std::uint64_t rejected_queued_reqs = 0, rejected_queued_tokens = 0, rejected_deadline = 0;
  std::uint64_t rejected_tenant = 0;  // by what one tenant may have in the server
  std::int64_t waiting_tokens = 0;    // of prompts
  // Everything that the loop has taken from the mailbox since the start: requests, their prompts.
  std::uint64_t taken_requests = 0, taken_tokens = 0;
  int cached_blocks = 0;            // unreferenced, of the prefix cache; not in used_blocks
  double kv_waste = 0;              // 1 - filled / allocated slots, now
  double plan_us = 0, step_us = 0;  // exponential means
  double full_step_us = 0;  // of the longest prompt's last step, as far as is known; 0: nothing is
};

// What the engine needs of the worker group; coordinator/fleet implements it over gRPC, tests fake
// it.
class GroupPort {
 public:
  virtual ~GroupPort() = default;
  virtual void send(const StepPlan& plan) = 0;  // never blocks; a plan of a past epoch is dropped
  virtual void end_epoch(const std::string& why) = 0;  // Engine::on_lost(why) follows, once
};

// What the group tells the engine. Any thread.
struct GroupReady {
  EpochId epoch = 0;
  int num_blocks = 0;
  int world = 1;
  StepId next_step = 1;     // of the engine's first plan: the fleet's dummy steps came before it
  int num_host_blocks = 0;  // of the offload store on every rank
  std::uint64_t saved_prefixes = 0;  // what every rank's store holds of an earlier life; 0: nothing
};

class Engine {
 public:
  // A step that stays unanswered for `step_deadline` ends the epoch; zero = the engine's own rule.
  // No tenants: everybody is one.
  Engine(const EngineConfig& config, const ModelSpec& spec,
         absl::Duration step_deadline = absl::ZeroDuration(), std::vector<Tenant> tenants = {});
  ~Engine();

  // --- any thread ---
  // Checks what needs no state (validate(params), prompt ids, prompt + 1 <= max_model_len, n) and
  // that the request can ever fit the cache; sets id and arrival. FailedPrecondition when stopping;
  // ResourceExhausted when a queue limit is reached, or one of the tenant's own
  // (is_rate_limited()); DeadlineExceeded when the request's deadline cannot be kept: retry_after()
  // says when to come again.
  absl::StatusOr<RequestId> submit(Request request);
  absl::Duration retry_after() const;  // by the measured drain rate; at least one second
  void cancel(RequestId id);           // no further delta after the kCancelled one
  // Ends one choice early because its text hit a stop string; the api already knows its reason, so
  // nothing more is delivered for it.
  void stop_choice(RequestId id, int choice);
  EngineStats stats() const;
  int max_model_len() const;

  void on_ready(const GroupReady& ready);
  void on_result(StepResult result);
  void on_lost(const std::string& why);  // the epoch ended: everything unfinished waits again

  // --- the owner ---
  // What save_prefixes() of an earlier life returned, for a group that comes with it
  // (GroupReady::saved_prefixes). Before start().
  void set_saved_prefixes(std::string index);
  void start(GroupPort* group);
  // Finishes every request with kCancelled and moves the prefix cache into the offload stores.
  // Returns its index; empty if there is none, or not within `deadline`. Only stop() may follow.
  std::string save_prefixes(absl::Duration deadline);
  void stop();  // finishes every request with kCancelled and joins

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
