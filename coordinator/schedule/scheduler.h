// Decides every step: which sequences compute how many tokens, in which blocks. A pure state
// machine without threads, I/O or clock; the engine's thread owns it. The rules for plans in flight
// and the life of a sequence are in coordinator/README.md.
//
// There are no phases: num_computed_tokens chases the tokens that exist, and each step grants some.
// Invariants: `running_` is in order; only running sequences hold a slot and blocks; every open
// choice of a request is one sequence (of a beam search: all of them together are).
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/step.h"
#include "coordinator/schedule/cost_model.h"
#include "coordinator/schedule/policy.h"
#include "coordinator/schedule/prefill_share.h"
#include "coordinator/schedule/sequence.h"
#include "coordinator/schedule/tenant_shares.h"
#include "coordinator/schedule/waiting_queue.h"

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
  Policy policy = Policy::kFcfs;
  absl::Duration priority_ageing = absl::Seconds(10);
  int long_prefill_token_threshold = -1;       // see PrefillShare
  std::vector<double> tenant_weights = {1.0};  // [tenant]
  bool prefix_caching = true;
  std::uint64_t hash_key = 0;             // of the prefix index
  int num_speculative_tokens = 0;         // drafts per row, at most; 0: none
  bool drafts_may_change_answers = true;  // false: none in a group that does not give one answer
  int prompt_lookup_max = 4;
  int prompt_lookup_min = 2;
};

// What a choice had gained when the coordinator died, or its group.
struct ChoicePast {
  std::vector<TokenId> tokens;
  bool ended = false;
};

struct NewRequest {
  RequestId id = 0;
  std::vector<TokenId> prompt;
  SamplingParams params;
  int n = 1;  // choices; choice i samples with index i
  BeamParams beams = {};
  int tenant = 0;
  int priority = 0;
  std::string cache_salt = {};
  absl::Time arrival = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
  std::vector<ChoicePast> past = {};  // [choice], one of them open; empty: a new one. Not of beams
  // What was told of its first admission, where another scheduler has seen that.
  struct Admission {
    int num_cached_tokens = 0;
    bool gained = false;  // the first token has been reported
  };
  std::optional<Admission> admission = {};
};

// kNoNumber: the model's logits were NaN or infinite; nothing was gained.
enum class EndReason { kNone, kStop, kLength, kNoNumber };

// What one choice gained by one result.
struct Gain {
  RequestId request = 0;
  int choice = 0;
  absl::InlinedVector<TokenId, 2> tokens;  // one; more with drafts; all of a beam at its end
  std::vector<std::vector<TokenLogprob>> logprobs;  // per token, if asked for
  EndReason end = EndReason::kNone;                 // kStop: the last token is an eos or stop token
  int num_cached_tokens = 0;  // of the prompt; with the first gain of a request
};

struct SchedulerCounts {
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_queries = 0, prefix_hits = 0;  // tokens of prompts at their first admission
  std::uint64_t saved_blocks = 0, loaded_blocks = 0;
  std::uint64_t drafts = 0, draft_tokens = 0, accepted_draft_tokens = 0;  // drafts: rows with any
};

// Slots of the KV cache, in positions: shared blocks once, cached ones not.
struct KvUse {
  std::int64_t allocated = 0;
  std::int64_t filled = 0;
};

// What is known of a request's first token before it is added; none of it too high.
struct Outlook {
  int missing_tokens = 0;          // of the prompt, that the cache does not have
  double prompt_s = 0;             // to compute them, alone; 0: too little is known of steps
  std::int64_t tokens_before = 0;  // of prompts that leave the queue before it in any case
};

// What a group has to do, for whoever chooses between groups.
struct GroupLoad {
  bool idle = true;                 // nothing runs or waits
  int free_seqs = 0;                // slots, less those that wait for one
  int free_blocks = 0;              // less what those that run or wait will need soon
  std::int64_t waiting_tokens = 0;  // to compute, of those that wait
  std::int64_t prompt_tokens = 0;   // the same and those of prompts that run
  StepWork streams;                 // of a step: one token each of those that run
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerConfig config);
  // Tenants are served by what they had of all schedulers that share `shares`.
  Scheduler(SchedulerConfig config, std::shared_ptr<TenantShares> shares);

  // --- requests ---
  // ResourceExhausted with both numbers if its longest form exceeds the group's blocks, or its
  // beams the slots.
  absl::Status add(NewRequest wish);
  // Slots of so many groups may come free at once.
  Outlook outlook(const NewRequest& wish, int num_groups = 1) const;
  // Of a step full of one prompt, where that is longest; 0 while costs are not known.
  double full_step_us() const;
  void cancel(RequestId id);  // at any point; an id that has ended is ignored
  void stop_choice(RequestId id, int choice);
  // Ends it; a beam search gives its best so far.
  std::vector<Gain> finish_early(RequestId id);

  // --- steps ---
  bool can_plan() const { return epoch_ != 0 && num_in_flight() < config_.steps_in_flight; }
  // The next step. A plan without rows is not to be sent: nothing can run until a result comes.
  StepPlan plan();
  // The result of the oldest plan in flight. Internal if it is one that only a broken worker sends
  // (wrong step, missing or unknown row, token out of range); nothing has changed then, and the
  // caller ends the epoch.
  absl::StatusOr<std::vector<Gain>> apply(StepResult result);

  // --- the worker group ---
  // Returns the requests that can never fit this group; they are forgotten. one_answer: what a row
  // gives does not depend on the rows beside it.
  std::vector<RequestId> start_group(EpochId epoch, int num_blocks, StepId first_step,
                                     int num_host_blocks = 0, bool one_answer = true);
  // Plans have only rows of this request from now on; what else runs gives way once nothing of it
  // is in flight. Nothing: of all. A request that has ended is nothing.
  void run_alone(std::optional<RequestId> request) { alone_ = request; }
  // Of the rows in flight, each once.
  std::vector<RequestId> requests_in_flight() const;
  // What the newest step in flight takes; 0 where too little is known of steps, or it moves blocks.
  // sure: steps like it have been measured.
  double newest_step_us(bool* sure) const;
  int num_running_requests() const;
  // What a lost group has computed of unfinished requests and the next one computes again.
  std::int64_t num_computed_tokens() const;
  // Forgets everything in flight; every unfinished sequence waits again with all its tokens, beam
  // searches begin anew.
  void lose_group();

  // --- several groups, each with a scheduler; one without a group holds what waits for any ---
  GroupLoad load() const;
  const WaitingQueue& waiting() const { return waiting_; }
  // Prompts that could begin here at once but wait elsewhere: they get a share of steps, too.
  void set_waiting_elsewhere(int count) { num_waiting_elsewhere_ = count; }
  // Of a sequence that waits in another scheduler: what the cache here has of it.
  struct Cached {
    int num_tokens = 0;  // not to be computed
    int num_blocks = 0;  // that others hold: they take no room
  };
  Cached cached(Sequence* sequence) const;
  // Blocks that it needs to begin, and at its longest, all of a search together.
  int blocks_to_begin(const Sequence& sequence) const;
  int blocks_at_end(const ScheduledRequest& request) const;
  // The first that waits and of whose request nothing runs or is in flight; null: there is none.
  Sequence* first_movable() const;
  // Forgets such a request: what add() of another scheduler needs beside what the client asked for.
  struct Handover {
    std::vector<TokenId> prompt;
    std::vector<ChoicePast> past;
    std::optional<NewRequest::Admission> admission;
  };
  Handover hand_over(RequestId id);

  // --- the offload store over restarts: with no request left and nothing in flight ---
  void begin_saving() { kv_.begin_saving_all(); }
  // A plan of saves alone, of at most `most` blocks; without any when everything is saved.
  StepPlan plan_saves(int most);
  std::string stored_index() const { return kv_.stored_index(); }
  // After start_group(). An error: nothing of it is used.
  absl::Status restore_index(absl::string_view bytes);

  EpochId epoch() const { return epoch_; }
  StepId oldest_step() const { return in_flight_.empty() ? 0 : in_flight_.front().step; }
  int num_in_flight() const { return static_cast<int>(in_flight_.size()); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return waiting_.size(); }
  std::int64_t num_waiting_tokens() const { return waiting_.num_tokens(); }
  int num_blocks() const { return kv_.num_total() * config_.num_kv_groups; }
  int num_used_blocks() const { return kv_.num_used() * config_.num_kv_groups; }
  int num_cached_blocks() const { return kv_.num_cached() * config_.num_kv_groups; }
  int num_host_blocks() const { return kv_.num_host_blocks() * config_.num_kv_groups; }
  const SchedulerCounts& counts() const { return counts_; }
  const StepCostModel& costs() const { return costs_; }
  absl::Span<const double> service() const { return shares_->service(); }  // [tenant]
  KvUse kv_use() const;

  // Internal with the first broken invariant. After every step in debug builds and simulations.
  absl::Status verify() const;

 private:
  struct RowInFlight {
    Sequence* sequence;
    SequenceId id;  // of it
    std::uint32_t life;
    int end;  // computed positions after it, drafts included
    int num_picks;
    bool has_logprobs;  // its picks must
  };
  struct StepInFlight {
    StepId step;
    std::vector<RowInFlight> rows;  // in plan order
    StepWork work;
    int num_loads = 0, num_saves = 0;
  };
  // A row of the plan being made.
  struct Grant {
    Sequence* sequence;
    int num_tokens;  // without drafts; 0: a fork's first row
    bool samples;
  };
  struct Draft {
    int budget_tokens = 0;
    int budget_picks = 0;
    StepWork work;
    int num_prompts = 0;  // that run
    StepWork streams;     // all others that run, granted or not: rows, and the tokens before them
    std::vector<Grant> grants;
    std::vector<AdmitRow> admits;
    bool preempted = false;
    bool may_draft = false;
    int drafts_each = 0;  // of one row, at most
  };
  // Of a step of everything that runs, and of a draft more in it. step_us 0: not known yet.
  struct DraftPrice {
    double step_us = 0;
    double draft_us = 0;
  };
  using Request = std::shared_ptr<ScheduledRequest>;

  // scheduler.cpp
  std::int64_t order_of(const NewRequest& wish) const;
  Sequence* make_sequence(const Request& request, int choice, std::vector<TokenId> tokens);
  void go_on(const Request& request, const NewRequest& wish);
  void end_request(const Request& request);
  void end_choice(ScheduledRequest* request, int choice);
  void lead(ScheduledRequest* request);
  void enqueue(Sequence* sequence);
  void leave_group(Sequence* sequence);
  void finish(Sequence* sequence);
  void forget_if_done(Sequence* sequence);
  absl::Status check_fit(const ScheduledRequest& request) const;

  // plan (scheduler_plan.cpp)
  bool try_is_due() const { return plans_since_drafts_ >= kPlansPerTry; }
  bool prompts_are_due() const;
  bool drafts_outweigh_waiting() const;
  bool awaits_drafts(bool may_draft) const;
  int drafts_each(const Draft& draft) const;
  bool make_way(Draft* draft);
  bool may_run(const Sequence& sequence) const;
  void grant_decodes(Draft* draft);
  void add_drafts(Sequence* sequence, int behind, Draft* draft);
  int num_that_could_begin() const;  // as many as there are slots; 0 below the watermark
  bool is_recovering();
  PrefillShare prefill_share(const Draft& draft);
  void grant_prefills(PrefillShare* share, Draft* draft);
  int grant_size(const Sequence& sequence, int most, const Draft& draft) const;
  int blocks_to_advance(const Sequence& sequence) const;
  bool make_room(Sequence* needy, Draft* draft);
  void grant(Sequence* sequence, int num_tokens, Draft* draft);
  void preempt(Sequence* victim, Draft* draft);
  StepPlan emit(Draft draft);
  void emit_row(const Grant& grant, StepPlan* plan, StepInFlight* step);
  void emit_moves(StepPlan* plan, StepInFlight* step);
  double saves_to_judge() const;
  bool saves_pay() const;
  BlockLists block_lists(absl::Span<const BlockId> blocks) const;

  // newcomers (scheduler_admit.cpp)
  int num_open_slots() const { return static_cast<int>(free_slots_.size()) - reserved_slots_; }
  void admit_waiting(PrefillShare* share, Draft* draft);
  Sequence* next_waiting();
  PrefixHit match(Sequence* sequence);
  bool loads_pay(const PrefixHit& all, const PrefixHit& here);
  bool fits_now(const Sequence& sequence, int promised, PrefixHit* hit) const;
  int promised_to(const Sequence& sequence) const;
  int promised_blocks() const;
  void admit(Sequence* sequence, const PrefixHit& hit, Draft* draft);
  void fork_choices(Sequence* parent, int end, Draft* draft);
  void fork(Sequence* parent, Sequence* child, Draft* draft);
  void enter_slot(Sequence* sequence, AdmitRow row, Draft* draft);

  // beams (scheduler_beams.cpp)
  void begin_search(const Request& request, std::vector<TokenId> prompt);
  void restart_search(const Request& request, bool preempted);
  void grant_beams(ScheduledRequest* request, Draft* draft);
  void open_beams(ScheduledRequest* request, Draft* draft);
  void apply_beams(const Request& request, absl::Span<RowResult> results, std::vector<Gain>* gains);
  void fail_search(const Request& request, std::vector<Gain>* gains);
  void end_search(const Request& request, bool early, std::vector<Gain>* gains);

  // apply (scheduler_apply.cpp)
  absl::Status check(const StepResult& result) const;
  absl::Status check_pick(const RowResult& pick, const RowInFlight& row) const;
  void learn_costs(const StepInFlight& step, double us);
  void settle_row(const RowInFlight& row, int end);
  void apply_row(const RowInFlight& row, absl::Span<RowResult> picks, std::vector<Gain>* gains);
  void apply_search_rows(absl::Span<const RowInFlight> rows, absl::Span<RowResult> picks,
                         std::vector<Gain>* gains);
  void want_drafts(Sequence* sequence);
  DraftPrice draft_price(const Sequence& sequence) const;
  EndReason end_of(const Sequence& sequence) const;

  absl::Status verify_running() const;
  absl::Status verify_in_flight() const;
  absl::Status verify_requests() const;

  const SchedulerConfig config_;
  KvManager kv_;
  StepCostModel costs_;
  double load_us_ = 0;  // of one block from the offload store, measured; 0: not known yet
  int num_refused_loads_ = 0;
  // Blocks moved of late, fading: whether saving what nobody has asked for twice is worth it.
  double lately_saved_ = 0, lately_loaded_ = 0;
  EpochId epoch_ = 0;                 // 0 = no group
  bool may_draft_ = false;            // in this group
  bool newcomer_lacks_room_ = false;  // in the newest plan
  bool recovering_ = false;           // see is_recovering()
  StepId next_step_ = 1;
  SequenceId next_id_ = 1;
  absl::flat_hash_map<RequestId, Request> requests_;  // unfinished
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;
  const std::shared_ptr<TenantShares> shares_;
  WaitingQueue waiting_;
  std::deque<StepInFlight> in_flight_;
  std::vector<SlotId> free_slots_;  // a stack
  int reserved_slots_ = 0;          // of them, for beams that run
  std::vector<SlotId> releases_;    // slots given up since the last plan that was sent
  std::vector<Sequence*> window_;   // scratch of next_waiting()
  int num_waiting_elsewhere_ = 0;
  static constexpr int kPlansPerTry = 32;
  int plans_since_drafts_ = 0;  // with none nobody learns what they cost
  std::optional<RequestId> alone_;
  SchedulerCounts counts_;
};

}  // namespace quire
