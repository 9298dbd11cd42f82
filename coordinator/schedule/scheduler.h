// Decides every step: which sequences compute how many tokens, in which blocks. A pure state
// machine without threads, I/O or clock; the engine's thread owns it. The rules for plans in flight
// and the life of a sequence are in coordinator/README.md.
//
// There are no phases: num_computed_tokens chases the tokens that exist, and each step grants some.
// Invariants: `running_` and `waiting_` are in order of arrival and every waiting sequence arrived
// after every running one; only running sequences hold a slot and blocks; all running ones but the
// latest are through with their prompts.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/step.h"
#include "coordinator/schedule/sequence.h"

namespace quire {

struct SchedulerConfig {
  int max_num_seqs = 128;
  int max_num_batched_tokens = 512;
  int steps_in_flight = 2;
  int block_size = 16;
  int num_kv_groups = 1;
  int max_model_len = 0;
  int vocab = 0;             // token ids in results must lie below
  std::vector<TokenId> eos;  // any of them ends a sequence unless it ignores eos
};

struct NewSequence {
  RequestId request = 0;
  int choice = 0;  // also its sample_index
  std::vector<TokenId> prompt;
  SamplingParams params;
};

enum class EndReason { kNone, kStop, kLength };

// What one sequence gained by one result.
struct Gain {
  SequenceId sequence = 0;
  RequestId request = 0;
  int choice = 0;
  TokenId token = 0;
  std::vector<TokenLogprob> logprobs;  // if asked for
  EndReason end = EndReason::kNone;    // kStop: `token` is an eos or stop token
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerConfig config);

  // --- sequences ---
  // ResourceExhausted with both numbers if its longest form exceeds the group's blocks.
  absl::StatusOr<SequenceId> add(NewSequence wish);
  void cancel(SequenceId id);  // at any point; an id that has ended is ignored

  // --- steps ---
  bool can_plan() const { return epoch_ != 0 && num_in_flight() < config_.steps_in_flight; }
  // The next step. A plan without rows is not to be sent: nothing can run until a result comes.
  StepPlan plan();
  // The result of the oldest plan in flight. Internal if it is one that only a broken worker sends
  // (wrong step, missing or unknown row, token out of range); nothing has changed then, and the
  // caller ends the epoch.
  absl::StatusOr<std::vector<Gain>> apply(StepResult result);

  // --- the worker group ---
  // Returns the sequences that can never fit this group's blocks; they are forgotten.
  std::vector<Gain> start_group(EpochId epoch, int num_blocks, StepId first_step);
  // Forgets everything in flight; every unfinished sequence waits again with all its tokens.
  void lose_group();

  EpochId epoch() const { return epoch_; }
  StepId oldest_step() const { return in_flight_.empty() ? 0 : in_flight_.front().step; }
  int num_in_flight() const { return static_cast<int>(in_flight_.size()); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int num_blocks() const { return kv_.num_total(); }
  int num_used_blocks() const { return kv_.num_used(); }
  std::uint64_t num_preemptions() const { return num_preemptions_; }

  // Internal with the first broken invariant. After every step in debug builds and simulations.
  absl::Status verify() const;

 private:
  struct RowInFlight {
    Sequence* sequence;
    bool samples;
  };
  struct StepInFlight {
    StepId step;
    std::vector<RowInFlight> rows;  // in plan order
  };
  // A row of the plan being made.
  struct Grant {
    Sequence* sequence;
    int num_tokens;
    BlockLists new_blocks;
  };
  struct Draft {
    int budget_tokens;
    std::vector<Grant> grants;
    std::vector<AdmitRow> admits;
    bool preempted = false;
  };

  // plan (scheduler_plan.cpp)
  void grant_running(bool decodes, Draft* draft);
  void admit_waiting(Draft* draft);
  bool make_room(const Sequence& needy, Draft* draft);
  void grant(Sequence* sequence, Draft* draft);
  void preempt(Sequence* victim, Draft* draft);
  void admit(Sequence* sequence, Draft* draft);
  int promised_blocks() const;
  StepPlan emit(Draft draft);

  // apply (scheduler_apply.cpp)
  absl::Status check(const StepResult& result) const;
  absl::Status check_row(const RowResult& row, const SamplingParams& params) const;
  EndReason end_of(const Sequence& sequence) const;

  void leave_group(Sequence* sequence);
  void finish(Sequence* sequence);
  void forget_if_done(Sequence* sequence);
  bool fits(const Sequence& sequence) const;
  absl::Status verify_running() const;
  absl::Status verify_in_flight() const;

  const SchedulerConfig config_;
  KvManager kv_;
  EpochId epoch_ = 0;  // 0 = no group
  StepId next_step_ = 1;
  SequenceId next_id_ = 1;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;
  std::map<SequenceId, Sequence*> waiting_;
  std::deque<StepInFlight> in_flight_;
  std::vector<SlotId> free_slots_;  // a stack
  std::vector<SlotId> releases_;    // slots given up since the last plan that was sent
  std::uint64_t num_preemptions_ = 0;
};

}  // namespace quire
