// The step loop: drain mailbox, plan, send, apply, deliver, for --data-parallel-size worker groups
// at once. One thread owns all of it; other threads leave messages in the mailbox.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config.h"
#include "common/model_spec.h"
#include "coordinator/engine/journal_port.h"
#include "coordinator/engine/request.h"
#include "coordinator/engine/tenant_limits.h"

namespace quire {

// Why an epoch ended.
enum class EndCause { kRankGone, kRankSilent, kWorkerError, kStepDeadline, kProtocol };
inline constexpr int kNumEndCauses = 5;
// "rank_gone", "rank_silent", ...: labels of metrics, words for the supervisor.
const char* name_of(EndCause cause);

// Whether requests are taken, and if not, why.
enum class ServingState { kStarting, kReady, kRecovering, kDraining, kFailed };
const char* name_of(ServingState state);  // "starting", "ready", ...

// Of one worker group, by its seat.
struct GroupStats {
  EpochId epoch = 0;             // 0: none is there
  int running = 0, waiting = 0;  // sequences
  int total_blocks = 0, used_blocks = 0;
  std::uint64_t steps = 0;
};

// Numbers for /metrics and logs, copied under a lock once a step. Where there are several groups:
// of all together.
struct EngineStats {
  bool ready = false;              // a group is attached and its dummy step has passed
  int num_groups = 1;              // that may serve at once
  int num_ready = 0;               // of them
  std::vector<GroupStats> groups;  // [seat]
  EpochId epoch = 0;               // the newest that is ready
  std::uint64_t steps = 0;
  int unfinished = 0;            // requests
  int running = 0, waiting = 0;  // sequences
  int free_slots = 0;            // for sequences, of groups that are ready
  int total_blocks = 0, used_blocks = 0;
  std::uint64_t prompt_tokens = 0, generation_tokens = 0, preemptions = 0;
  std::uint64_t finished_stop = 0, finished_length = 0, finished_abort = 0, finished_error = 0;
  std::uint64_t stale_replies_dropped = 0, group_losses = 0;
  std::array<std::uint64_t, kNumEndCauses> group_ends = {};  // the losses by cause
  // What ran when a group was lost and runs in the next one; what that computes again.
  std::uint64_t requests_recovered = 0, tokens_recomputed = 0;
  std::uint64_t requests_quarantined = 0;
  std::uint64_t numerics_changes = 0;           // requests that went on under another numerics id
  JournalStats journal;                         // as if all were well where there is none
  double step_deadline_s = 0;                   // of the newest step; 0: there was none
  absl::Time last_step = absl::InfinitePast();  // when one was applied
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
  absl::Time answer_due = absl::InfiniteFuture();  // of the oldest step in flight
  double full_step_us = 0;  // of the longest prompt's last step, as far as is known; 0: nothing is
};

// What the engine needs of the worker groups; coordinator/fleet implements it over gRPC, tests fake
// it.
class GroupPort {
 public:
  virtual ~GroupPort() = default;
  virtual void send(const StepPlan& plan) = 0;  // never blocks; a plan of a past epoch is dropped
  // Engine::on_lost() follows. One that has ended is passed over.
  virtual void end_epoch(EpochId epoch, EndCause cause, const std::string& why) = 0;
};

// What a group tells the engine. Any thread.
struct GroupReady {
  EpochId epoch = 0;
  int num_blocks = 0;
  int world = 1;
  StepId next_step = 1;     // of the engine's first plan: the fleet's dummy steps came before it
  int num_host_blocks = 0;  // of the offload store on every rank
  std::uint64_t saved_prefixes = 0;  // what every rank's store holds of an earlier life; 0: nothing
  std::uint64_t numerics = 0;  // fingerprint of the numerics id by which it computes; 0: unknown
  bool one_answer = false;     // a row's bits do not depend on the rows beside it
  int seat = 0;                // which of the groups that serve at once
  std::string instance = {};   // of its processes
};

// What the owner hears, from the engine's thread; must not block.
struct EngineEvents {
  std::function<void()> on_ready = [] {};  // a group is
  std::function<void()> on_lost = [] {};   // no group is ready any more
  // At most once an epoch: a step was applied, or the group stood ready for a minute and had
  // nothing to do. So a life of which this is not said has done nobody any good.
  std::function<void(EpochId, const std::string& instance)> on_progress = [](EpochId,
                                                                             const std::string&) {};
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
  // that the request can ever fit the cache; sets id and arrival. Unavailable when stopping;
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
  ServingState state() const;
  // Unavailable, with what hangs, when the engine does not turn or a step is overdue: only a new
  // process can help. Neither a full queue nor a missing worker group is a reason.
  absl::Status check_progress() const;
  int max_model_len() const;

  void on_ready(const GroupReady& ready);
  void on_result(StepResult result);
  // The epoch ended: what it had unfinished waits again. One that is not the engine's is passed
  // over.
  void on_lost(EpochId epoch, EndCause cause = EndCause::kRankGone);

  // --- the owner ---
  // Before start(); it outlives the engine. Requests with an answer are written there before
  // submit() returns (else Aborted), and what they gain before it is delivered.
  void set_journal(JournalPort* journal);
  void set_first_request(RequestId id);  // before start(): ids begin there
  // Before start(): a request of an earlier life goes on from its past, under its id. DataLoss or
  // InvalidArgument: it cannot be one of this server.
  absl::Status resume(SavedRequest saved);
  // Cancels one of an earlier life, whether it was resumed or not; the journal forgets it.
  void give_up(RequestId id);
  // What save_prefixes() of an earlier life returned, for a group that comes with it
  // (GroupReady::saved_prefixes). Before start().
  void set_saved_prefixes(std::string index);
  void set_events(EngineEvents events);  // before start()
  void start(GroupPort* group);
  // From here on no request is taken; those that were go on. True when none is unfinished; false
  // when `patience` or hurry() has ended the wait.
  bool drain(absl::Duration patience);
  void hurry();
  // No worker group will come any more: the state is kFailed and no request is taken.
  void fail();
  // Finishes every request with kCancelled and moves the prefix cache into the offload stores.
  // Returns its index; empty if there is none, or not within `deadline`. Only stop() may follow.
  std::string save_prefixes(absl::Duration deadline);
  void stop();  // finishes every request with kCancelled and joins

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
