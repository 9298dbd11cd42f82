// Makes the next plan: decodes first, then prefills, then newcomers, each in order.
//
// A draft collects grants and reserves their blocks; sequences advance only in emit(), so that what
// a row still needs does not change while the plan is made.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "common/check.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {
namespace {

constexpr double kInputCharge = 1;  // of a tenant, for a prompt token computed
constexpr double kOutputCharge = 2;
constexpr int kTriedDrafts = 3;
// Of a step: until its result has come and the next plan is there.
constexpr double kWaitShare = 1.0 / 16;
constexpr double kLeastSavesToJudge = 2048;
constexpr double kDropsPerSave = 16;  // blocks dropped for one saved to try

}  // namespace

StepPlan Scheduler::plan() {
  QUIRE_CHECK(can_plan());
  Draft draft;
  draft.budget_tokens = config_.max_num_batched_tokens;
  draft.budget_picks = max_picks(config_.max_num_seqs);
  draft.grants.reserve(running_.size());
  draft.may_draft = may_draft_ && !prompts_are_due() && drafts_outweigh_waiting();
  if (awaits_drafts(draft.may_draft) || !make_way(&draft)) return StepPlan();
  if (draft.may_draft) draft.drafts_each = drafts_each(draft);
  grant_decodes(&draft);
  PrefillShare share = prefill_share(draft);
  grant_prefills(&share, &draft);
  admit_waiting(&share, &draft);
  return emit(std::move(draft));
}

// Drafts make a step longer, and so does a prompt: its share is measured by a step without them,
// and they wait until it is computed.
bool Scheduler::prompts_are_due() const {
  return (!waiting_.empty() && !newcomer_lacks_room_ && num_that_could_begin() > 0) ||
         absl::c_any_of(running_, [](const Sequence* sequence) {
           return sequence->may_grow() && sequence->num_missing_tokens() > 1;
         });
}

// Rows with drafts cannot be planned ahead, so that all wait for results: what drafts bring
// together must be more than that costs.
bool Scheduler::drafts_outweigh_waiting() const {
  double net_tokens = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->wanted_drafts == 0) continue;
    if (try_is_due()) return true;
    net_tokens += sequence->net_draft_tokens;
  }
  return net_tokens > (config_.steps_in_flight > 1 ? kWaitShare * num_running() : 0.0);
}

// Whether a row that runs could not be in this plan because of drafts: its next row needs the
// result of the one in flight. Then all wait for that: a step of the others would cost each of
// those that wait a whole step, and waiting costs the way from here to the ranks and back.
bool Scheduler::awaits_drafts(bool may_draft) const {
  return may_draft_ && !in_flight_.empty() &&
         absl::c_any_of(running_, [may_draft](const Sequence* sequence) {
           return sequence->num_rows_in_flight > 0 &&
                  (!sequence->drafts.empty() || (may_draft && sequence->wanted_drafts > 0));
         });
}

bool Scheduler::may_run(const Sequence& sequence) const {
  return !alone_.has_value() || sequence.request->id == *alone_;
}

// For the one that runs alone: false while rows of others are in flight; then those that run wait
// again, as if blocks had run out, so that none holds what it needs.
bool Scheduler::make_way(Draft* draft) {
  if (alone_.has_value() && !requests_.contains(*alone_)) alone_.reset();
  if (!alone_.has_value()) return true;
  for (const StepInFlight& step : in_flight_) {
    for (const RowInFlight& row : step.rows) {
      if (row.sequence->request->id != *alone_) return false;
    }
  }
  const auto other = [this] {
    return std::find_if(running_.begin(), running_.end(),
                        [this](const Sequence* sequence) { return !may_run(*sequence); });
  };
  for (auto found = other(); found != running_.end(); found = other()) preempt(*found, draft);
  draft->preempted = false;  // it may be admitted
  return true;
}

void Scheduler::grant_decodes(Draft* draft) {
  // Preemption takes from behind the row that asks: the index stays good.
  for (std::size_t i = 0; i < running_.size() && draft->budget_tokens > 0; ++i) {
    Sequence* sequence = running_[i];
    if (i + kAhead < running_.size()) prefetch(*running_[i + kAhead]);
    if (!sequence->granted && sequence->is_beam && !sequence->request->due.empty()) {
      grant_beams(sequence->request.get(), draft);
      if (i >= running_.size() || running_[i] != sequence) {  // this beam has ended
        --i;
        continue;
      }
    }
    if (!sequence->may_grow()) continue;
    if (sequence->num_missing_tokens() > 1) {
      ++draft->num_prompts;
      continue;
    }
    draft->streams.num_rows += 1;
    draft->streams.context_tokens += sequence->num_computed_tokens;
    if (sequence->granted || !policy::is_decode(*sequence)) continue;
    if (sequence->is_beam && sequence->num_rows_in_flight > 0) continue;
    if (draft->budget_picks == 0 || !make_room(sequence, draft)) continue;
    if (draft->may_draft && sequence->wanted_drafts > 0) {
      add_drafts(sequence, static_cast<int>(running_.size() - i) - 1, draft);
    }
    grant(sequence, 1, draft);
  }
}

// How many a row may have so that all rows' fit beside a token each. The first ones of a row are
// the likeliest to be right: all rows have some before any has more.
int Scheduler::drafts_each(const Draft& draft) const {
  const int room = std::min(draft.budget_tokens, draft.budget_picks) - num_running();
  int each = config_.num_speculative_tokens;
  const auto wanted = [this](int most) {
    int all = 0;
    for (const Sequence* sequence : running_) all += std::min(sequence->wanted_drafts, most);
    return all;
  };
  while (each > 1 && wanted(each) > room) --each;
  return each;
}

// As many as pay and fit, beside a token for each of the `behind` rows after this one: nobody gives
// way for drafts. One row tries some in a plan, if any.
void Scheduler::add_drafts(Sequence* sequence, int behind, Draft* draft) {
  sequence->wanted_drafts = 0;
  const int room = std::min({draft->drafts_each, draft->budget_tokens - 1 - behind,
                             draft->budget_picks - 1 - behind,
                             sequence->max_total_tokens - sequence->num_tokens() - 1});
  const DraftPrice price = draft_price(*sequence);
  const int most = try_is_due() ? std::min(room, kTriedDrafts)
                                : sequence->draft_gain.worthwhile(room, num_running(),
                                                                  price.step_us, price.draft_us);
  if (most <= 0) return;
  std::vector<TokenId> drafts = sequence->drafter->draft(sequence->tokens.all(), most);
  const int computed = sequence->num_computed_tokens;
  const int end = computed + 1 + static_cast<int>(drafts.size());
  const int missing = kv_.missing_blocks(computed, end, sequence->table);
  if (drafts.empty() || missing + behind > kv_.num_available()) return;
  sequence->drafts = std::move(drafts);
  plans_since_drafts_ = 0;
}

int Scheduler::num_that_could_begin() const {
  return kv_.num_available() > policy::watermark_blocks(kv_.num_total()) ? num_open_slots() : 0;
}

// Streams that a lost group broke off are computed again as fast as can be: all of them stand
// still, and the pace of those that are first must not make the last ones wait longer. It is over
// when none of them is left that runs or could begin now.
bool Scheduler::is_recovering() {
  if (!recovering_) return false;
  const auto stands_still = [](const Sequence* sequence) {
    return sequence->recovers && sequence->num_missing_tokens() > 1;
  };
  recovering_ = absl::c_any_of(running_, stands_still) ||
                (num_that_could_begin() > 0 && absl::c_any_of(waiting_.all(), stands_still));
  return recovering_;
}

// Prompts are those that run and those that could begin now. Streams whose rows are all in flight
// (beams) count as if they were in this step: they wait for its end.
PrefillShare Scheduler::prefill_share(const Draft& draft) {
  const int num_prompts = draft.num_prompts + std::min(waiting_.size() + num_waiting_elsewhere_,
                                                       num_that_could_begin());
  StepWork streams = draft.streams;
  streams.context_reads = streams.context_tokens;
  streams.num_tokens = streams.num_samples = streams.num_rows;
  return PrefillShare(costs_, draft.work.num_tokens < streams.num_tokens ? streams : draft.work,
                      {.num_prompts = num_prompts,
                       .budget_tokens = config_.max_num_batched_tokens,
                       .threshold = is_recovering() ? 0 : config_.long_prefill_token_threshold});
}

void Scheduler::grant_prefills(PrefillShare* share, Draft* draft) {
  for (std::size_t i = 0; i < running_.size() && draft->budget_tokens > 0; ++i) {
    Sequence* sequence = running_[i];
    if (sequence->granted || !sequence->may_grow() || sequence->num_missing_tokens() <= 1) continue;
    const int begin = sequence->num_computed_tokens;
    const int most = share->most_tokens(begin, sequence->num_missing_tokens());
    if (most <= 0) return;
    if (!make_room(sequence, draft)) continue;
    const int num_tokens = grant_size(*sequence, most, *draft);
    share->take(begin, num_tokens);
    grant(sequence, num_tokens, draft);
  }
}

// No more than it needs, than the step's budget leaves and than blocks can hold; at least one.
int Scheduler::grant_size(const Sequence& sequence, int most, const Draft& draft) const {
  const int begin = sequence.num_computed_tokens;
  const int copied = kv_.missing_blocks(begin, begin, sequence.table);
  const int reachable =
      (sequence.table.num_blocks() + kv_.num_available() - copied) * config_.block_size - begin;
  int size = std::min({sequence.num_missing_tokens(), most, draft.budget_tokens, reachable});
  // The end of a prompt is picked from.
  if (size == sequence.num_missing_tokens() && draft.budget_picks == 0) --size;
  return std::max(size, 1);
}

// What the next token of a sequence, or of all beams of a search, takes at most.
int Scheduler::blocks_to_advance(const Sequence& sequence) const {
  // Each beam may need one: a new block, or its own copy of the last.
  if (sequence.is_beam && !sequence.request->due.empty()) {
    return static_cast<int>(sequence.request->due.size());
  }
  const int computed = sequence.num_computed_tokens;
  if (kv_.covers(computed + 1, sequence.table)) return 0;
  return kv_.missing_blocks(computed, computed + 1, sequence.table);
}

// Frees blocks until `needy` can advance. False if it has to wait. Who gives way may be the one
// that a block is shared with: what is missing is counted anew each time.
bool Scheduler::make_room(Sequence* needy, Draft* draft) {
  while (kv_.num_available() < blocks_to_advance(*needy)) {
    Sequence* victim = policy::pick_victim({.policy = config_.policy,
                                            .running = running_,
                                            .needy = needy,
                                            .service = shares_->service()});
    if (victim == nullptr) return false;
    preempt(victim, draft);
  }
  return true;
}

void Scheduler::grant(Sequence* sequence, int num_tokens, Draft* draft) {
  const int begin = sequence->num_computed_tokens;
  const int end = begin + num_tokens + static_cast<int>(sequence->drafts.size());
  QUIRE_CHECK_GT(num_tokens, 0);
  QUIRE_CHECK(kv_.covers(end, sequence->table) || kv_.reserve(begin, end, &sequence->table));
  const bool samples = num_tokens == sequence->num_missing_tokens();
  sequence->granted = true;
  draft->budget_tokens -= end - begin;
  draft->work.add_row(begin, end - begin);
  if (samples) {
    const int picks = 1 + static_cast<int>(sequence->drafts.size());
    draft->budget_picks -= picks;
    draft->work.num_samples += picks;
  }
  draft->grants.push_back({sequence, num_tokens, samples});
  if (samples && end <= sequence->num_prompt_tokens && !sequence->request->held.empty())
    fork_choices(sequence, end, draft);
}

// The victim gives up slot and blocks and waits with all its tokens; what is full of its blocks
// stays cached for as long as there is room, here or in the offload store. A token of it that is in
// flight is still applied when its result comes.
void Scheduler::preempt(Sequence* victim, Draft* draft) {
  draft->preempted = true;
  ++counts_.preemptions;
  const Request request = victim->request;
  if (request->search != nullptr) {
    const std::vector<Sequence*> beams = request->open;
    for (Sequence* beam : beams) {
      leave_group(beam);
      beam->state = SequenceState::kHeld;
    }
    restart_search(request, /*preempted=*/true);
    return;
  }
  kv_.keep(victim->table);  // it comes back
  leave_group(victim);
  victim->preempted = true;
  enqueue(victim);
}

StepPlan Scheduler::emit(Draft draft) {
  StepPlan plan;
  if (draft.grants.empty()) return plan;
  ++plans_since_drafts_;
  plan.epoch = epoch_;
  plan.step = next_step_++;
  plan.releases = std::exchange(releases_, {});
  plan.admits = std::move(draft.admits);
  plan.rows.reserve(draft.grants.size());
  StepInFlight step{plan.step, {}, draft.work, 0, 0};
  step.rows.reserve(draft.grants.size());
  emit_moves(&plan, &step);
  for (std::size_t i = 0; i < draft.grants.size(); ++i) {
    if (i + kAhead < draft.grants.size()) prefetch(*draft.grants[i + kAhead].sequence);
    emit_row(draft.grants[i], &plan, &step);
  }
  in_flight_.push_back(std::move(step));
  return plan;
}

void Scheduler::emit_row(const Grant& grant, StepPlan* plan, StepInFlight* step) {
  Sequence& sequence = *grant.sequence;
  PlanRow& row = plan->rows.emplace_back();
  row.slot = sequence.slot;
  row.first_position = sequence.num_computed_tokens;
  row.num_tokens = grant.num_tokens + static_cast<int>(sequence.drafts.size());
  row.samples = grant.samples;
  BlockTable& table = sequence.table;
  if (table.num_right < table.num_sent) row.keep_blocks = table.num_right;
  if (table.num_right < table.num_blocks()) {
    row.new_blocks = block_lists(
        absl::MakeConstSpan(table.blocks).subspan(static_cast<std::size_t>(table.num_right)));
  }
  table.num_right = table.num_sent = table.num_blocks();
  if (!sequence.drafts.empty()) row.drafts = sequence.drafts;
  const bool tells = sequence.is_beam && sequence.num_tokens() > sequence.num_prompt_tokens;
  if (tells) row.tokens = {sequence.tokens.back()};

  const int num_picks = grant.samples ? 1 + static_cast<int>(row.drafts.size()) : 0;
  sequence.num_computed_tokens += row.num_tokens;
  step->rows.push_back({&sequence, sequence.id, sequence.life, sequence.num_computed_tokens,
                        num_picks, sequence.returns_logprobs || sequence.is_beam});
  sequence.num_rows_in_flight += 1;
  // What a search picks is not a token yet, and how many drafts are right is not known.
  if (num_picks == 1 && !sequence.is_beam) sequence.num_sampled_in_flight += 1;
  if (!row.drafts.empty()) {
    ++counts_.drafts;
    counts_.draft_tokens += row.drafts.size();
  }
  sequence.granted = false;
  shares_->charge(sequence.tenant,
                  kInputCharge * grant.num_tokens + (grant.samples ? kOutputCharge : 0));
}

void Scheduler::emit_moves(StepPlan* plan, StepInFlight* step) {
  BlockMoves moves = kv_.take_moves();
  step->num_loads = static_cast<int>(moves.loads.size());
  step->num_saves = static_cast<int>(moves.saves.size());
  counts_.loaded_blocks += moves.loads.size();
  counts_.saved_blocks += moves.saves.size();
  lately_saved_ += static_cast<double>(moves.saves.size());
  lately_loaded_ += static_cast<double>(moves.loads.size());
  const double fading = lately_saved_ > 2 * saves_to_judge()
                            ? 0.5
                            : std::exp(-moves.num_dropped / (kDropsPerSave * saves_to_judge()));
  lately_saved_ *= fading;
  lately_loaded_ *= fading;
  kv_.set_saving_all(saves_pay());
  const int groups = config_.num_kv_groups;
  for (int g = 0; g < groups; ++g) {
    for (const BlockSwap& save : moves.saves) {
      plan->saves.push_back({save.block * groups + g, save.host * groups + g});
    }
    for (const BlockSwap& load : moves.loads) {
      plan->loads.push_back({load.block * groups + g, load.host * groups + g});
    }
    for (const BlockCopy& copy : moves.copies) {
      plan->copies.push_back({g, copy.from * groups + g, copy.to * groups + g});
    }
  }
}

// What is saved has its chance to come back until the store is full.
double Scheduler::saves_to_judge() const {
  return std::max(kLeastSavesToJudge, static_cast<double>(kv_.num_host_blocks()));
}

// A save costs about what a load does, and pays when enough of what is saved comes back instead of
// being computed. Until enough was saved to judge by it is taken to pay; the judgement fades with
// what is dropped, so that it is tried again.
bool Scheduler::saves_pay() const {
  if (lately_saved_ < saves_to_judge() || !costs_.known()) return true;
  const double compute_us =
      config_.block_size * costs_.us_per_prefill_token(0, config_.max_num_batched_tokens);
  return lately_loaded_ * (compute_us - load_us_) > lately_saved_ * load_us_;
}

BlockLists Scheduler::block_lists(absl::Span<const BlockId> blocks) const {
  const int groups = config_.num_kv_groups;
  BlockLists lists(static_cast<std::size_t>(groups));
  for (int g = 0; g < groups; ++g) {
    auto& list = lists[static_cast<std::size_t>(g)];
    list.reserve(blocks.size());
    for (const BlockId block : blocks) list.push_back(block * groups + g);
  }
  return lists;
}

absl::Status Scheduler::restore_index(absl::string_view bytes) {
  absl::Status status = kv_.restore(bytes);
  if (!status.ok()) kv_.reset(kv_.num_total(), kv_.num_host_blocks());
  return status;
}

StepPlan Scheduler::plan_saves(int most) {
  QUIRE_CHECK(requests_.empty() && in_flight_.empty());
  StepPlan plan;
  if (epoch_ == 0) return plan;
  kv_.save_some(most);
  StepInFlight step{next_step_, {}, {}, 0, 0};
  emit_moves(&plan, &step);
  if (plan.saves.empty()) return plan;
  plan.epoch = epoch_;
  plan.step = next_step_++;
  plan.releases = std::exchange(releases_, {});
  in_flight_.push_back(std::move(step));
  return plan;
}

}  // namespace quire
