// The life of requests and sequences in the scheduler: arrival, end, and the coming and going of
// worker groups.
#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace quire {
namespace {

std::vector<SlotId> all_slots(int count) {
  std::vector<SlotId> slots(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) slots[static_cast<std::size_t>(i)] = count - 1 - i;
  return slots;
}

}  // namespace

Scheduler::Scheduler(SchedulerConfig config)
    : Scheduler(config, std::make_shared<TenantShares>(config.tenant_weights)) {}

Scheduler::Scheduler(SchedulerConfig config, std::shared_ptr<TenantShares> shares)
    : config_(std::move(config)),
      kv_({config_.block_size, config_.prefix_caching, config_.hash_key}),
      shares_(std::move(shares)),
      waiting_(config_.policy, shares_) {
  QUIRE_CHECK_GT(config_.max_num_seqs, 0);
  QUIRE_CHECK_GT(config_.max_num_batched_tokens, 0);
  QUIRE_CHECK_GT(config_.steps_in_flight, 0);
  QUIRE_CHECK_GT(config_.num_kv_groups, 0);
}

Sequence* Scheduler::make_sequence(const Request& request, int choice,
                                   std::vector<TokenId> tokens) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id_++;
  sequence->request = request;
  sequence->request_id = request->id;
  sequence->choice = choice;
  sequence->tenant = request->tenant;
  sequence->is_beam = request->is_beam();
  sequence->returns_logprobs = request->wants_logprobs;
  sequence->ends_on_token = !request->params.ignore_eos || !request->params.stop_token_ids.empty();
  sequence->num_prompt_tokens = request->num_prompt_tokens;
  sequence->max_total_tokens = request->max_total_tokens;
  sequence->tokens = TokenList(std::move(tokens));
  Sequence* made = sequence.get();
  sequences_.emplace(made->id, std::move(sequence));
  return made;
}

std::int64_t Scheduler::order_of(const NewRequest& wish) const {
  return policy::order_us({.policy = config_.policy,
                           .arrival = wish.arrival,
                           .deadline = wish.deadline,
                           .priority = wish.priority,
                           .ageing = config_.priority_ageing,
                           .num_prompt_tokens = static_cast<int>(wish.prompt.size())});
}

absl::Status Scheduler::add(NewRequest wish) {
  QUIRE_CHECK(!wish.prompt.empty());
  QUIRE_CHECK_GE(wish.params.max_tokens, 1);
  QUIRE_CHECK_GE(wish.n, 1);
  const auto num_prompt_tokens = static_cast<int>(wish.prompt.size());
  QUIRE_CHECK_LT(num_prompt_tokens, config_.max_model_len);
  const std::int64_t order_us = order_of(wish);
  auto request = std::make_shared<ScheduledRequest>();
  request->id = wish.id;
  request->params = std::move(wish.params);
  request->wants_logprobs = request->params.logprobs >= 0;
  request->n = wish.n;
  request->beams = wish.beams;
  request->tenant = wish.tenant;
  request->priority = wish.priority;
  request->scope = scope_of(wish.tenant, wish.cache_salt);
  request->num_prompt_tokens = num_prompt_tokens;
  request->max_total_tokens =
      num_prompt_tokens +
      std::min(request->params.max_tokens, config_.max_model_len - num_prompt_tokens);
  request->order_us = order_us;
  QUIRE_RETURN_IF_ERROR(check_fit(*request));
  QUIRE_CHECK(requests_.emplace(request->id, request).second);
  shares_->enter(request->tenant);
  if (wish.admission.has_value()) {
    request->is_warm = true;
    request->num_cached_tokens = wish.admission->num_cached_tokens;
    request->gained = wish.admission->gained;
  }
  if (request->is_beam()) {
    begin_search(request, std::move(wish.prompt));
    return absl::OkStatus();
  }
  if (!wish.past.empty()) {
    go_on(request, wish);
    return absl::OkStatus();
  }
  for (int choice = 0; choice < request->n; ++choice) {
    const bool last = choice + 1 == request->n;
    request->choices.push_back(
        make_sequence(request, choice, last ? std::move(wish.prompt) : wish.prompt));
    request->choices.back()->state = SequenceState::kHeld;
    request->held.push_back(request->choices.back());
  }
  lead(request.get());
  return absl::OkStatus();
}

// Its choices as an earlier coordinator, or another group's scheduler, left them: those with tokens
// wait by themselves, as after the loss of a group; the others for the prompt.
void Scheduler::go_on(const Request& request, const NewRequest& wish) {
  QUIRE_CHECK_EQ(wish.past.size(), static_cast<std::size_t>(request->n));
  for (int choice = 0; choice < request->n; ++choice) {
    const ChoicePast& past = wish.past[static_cast<std::size_t>(choice)];
    request->gained = request->gained || !past.tokens.empty();
    if (past.ended) {
      request->choices.push_back(nullptr);
      continue;
    }
    std::vector<TokenId> tokens = wish.prompt;
    tokens.insert(tokens.end(), past.tokens.begin(), past.tokens.end());
    QUIRE_CHECK_LT(static_cast<int>(tokens.size()), request->max_total_tokens);
    Sequence* sequence = make_sequence(request, choice, std::move(tokens));
    request->choices.push_back(sequence);
    if (past.tokens.empty()) {
      sequence->state = SequenceState::kHeld;
      request->held.push_back(sequence);
    } else {
      enqueue(sequence);
    }
  }
  lead(request.get());
}

absl::Status Scheduler::check_fit(const ScheduledRequest& request) const {
  // All beams of a search advance in one step.
  const int widest = std::min(config_.max_num_seqs, config_.max_num_batched_tokens);
  if (request.is_beam() && request.beams.width > widest) {
    return absl::ResourceExhaustedError(absl::StrCat("The search is ", request.beams.width,
                                                     " beams wide, but only ", widest,
                                                     " sequences run at once."));
  }
  if (epoch_ == 0) return absl::OkStatus();
  const int needed = request.is_beam()
                         ? policy::beam_blocks_at_end(request, config_.block_size)
                         : policy::blocks_at_end(request.max_total_tokens, config_.block_size);
  if (needed <= kv_.num_total()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "The request can grow to ", request.max_total_tokens, " tokens",
      request.is_beam() ? absl::StrCat(" in each of ", request.beams.width, " beams") : "",
      ", which is ", needed, " blocks, but the KV cache holds ", kv_.num_total(), " of ",
      config_.block_size, " tokens."));
}

// The first of the choices that are held goes to the queue; the others wait for its prompt.
void Scheduler::lead(ScheduledRequest* request) {
  if (request->held.empty()) return;
  Sequence* leader = request->held.front();
  request->held.erase(request->held.begin());
  enqueue(leader);
}

void Scheduler::enqueue(Sequence* sequence) {
  sequence->state = SequenceState::kWaiting;
  waiting_.push(sequence);
}

void Scheduler::cancel(RequestId id) {
  const auto found = requests_.find(id);
  if (found != requests_.end()) end_request(Request(found->second));
}

void Scheduler::end_request(const Request& request) {
  requests_.erase(request->id);
  shares_->leave(request->tenant);
  request->held.clear();
  std::vector<Sequence*> all = std::exchange(request->choices, {});
  const std::vector<Sequence*> beams = std::exchange(request->open, {});
  all.insert(all.end(), beams.begin(), beams.end());
  request->due.clear();
  reserved_slots_ -= std::exchange(request->reserved_slots, 0);
  for (Sequence* sequence : all) {
    if (sequence != nullptr) finish(sequence);
  }
}

void Scheduler::stop_choice(RequestId id, int choice) {
  const auto found = requests_.find(id);
  if (found == requests_.end() || found->second->is_beam()) return;
  const Request request = found->second;
  const auto index = static_cast<std::size_t>(choice);
  if (index >= request->choices.size() || request->choices[index] == nullptr) return;
  Sequence* sequence = request->choices[index];
  end_choice(request.get(), choice);
  finish(sequence);
}

// The choice has its end; its sequence is finished by the caller.
void Scheduler::end_choice(ScheduledRequest* request, int choice) {
  Sequence*& place = request->choices[static_cast<std::size_t>(choice)];
  const bool led = place->state != SequenceState::kHeld;
  const auto held = std::find(request->held.begin(), request->held.end(), place);
  if (held != request->held.end()) request->held.erase(held);
  place = nullptr;
  const auto& choices = request->choices;
  if (std::all_of(choices.begin(), choices.end(), [](Sequence* s) { return s == nullptr; })) {
    shares_->leave(request->tenant);
    requests_.erase(request->id);  // `request` lives on in its sequence
  } else if (led) {
    lead(request);  // it went before its prompt was computed
  }
}

std::vector<Gain> Scheduler::finish_early(RequestId id) {
  std::vector<Gain> gains;
  const auto found = requests_.find(id);
  if (found == requests_.end()) return gains;
  const Request request = found->second;
  if (request->search != nullptr && request->search->num_generated() > 0) {
    end_search(request, /*early=*/true, &gains);
  } else {
    end_request(request);
  }
  return gains;
}

// Gives back slot and blocks; the workers hear of it in the next plan. Blocks may be named again by
// that plan: it runs after every plan in flight.
void Scheduler::leave_group(Sequence* sequence) {
  const auto place = std::lower_bound(running_.begin(), running_.end(), sequence, Earlier());
  QUIRE_CHECK(place != running_.end() && *place == sequence);
  running_.erase(place);
  kv_.release(&sequence->table);
  free_slots_.push_back(sequence->slot);
  releases_.push_back(sequence->slot);
  sequence->slot = -1;
  sequence->num_computed_tokens = 0;
  sequence->num_applied_tokens = 0;
  sequence->wanted_drafts = 0;
  sequence->drafts.clear();
  sequence->drafter.reset();
  sequence->guess = -1;
  ++sequence->life;
}

void Scheduler::finish(Sequence* sequence) {
  if (sequence->state == SequenceState::kRunning) leave_group(sequence);
  if (sequence->state == SequenceState::kWaiting) waiting_.remove(sequence);
  sequence->state = SequenceState::kFinished;
  forget_if_done(sequence);
}

void Scheduler::forget_if_done(Sequence* sequence) {
  if (sequence->state == SequenceState::kFinished && sequence->num_rows_in_flight == 0) {
    sequences_.erase(sequence->id);
  }
}

std::vector<RequestId> Scheduler::start_group(EpochId epoch, int num_blocks, StepId first_step,
                                              int num_host_blocks, bool one_answer) {
  QUIRE_CHECK_EQ(epoch_, EpochId{0});
  QUIRE_CHECK_GT(epoch, EpochId{0});
  epoch_ = epoch;
  next_step_ = first_step;
  may_draft_ =
      config_.num_speculative_tokens > 0 && (one_answer || config_.drafts_may_change_answers);
  kv_.reset(num_blocks / config_.num_kv_groups, num_host_blocks / config_.num_kv_groups);
  free_slots_ = all_slots(config_.max_num_seqs);
  std::vector<RequestId> refused;
  for (const auto& [id, request] : requests_) {
    if (!check_fit(*request).ok()) refused.push_back(id);
  }
  std::sort(refused.begin(), refused.end());
  for (const RequestId id : refused) cancel(id);
  for (Sequence* sequence : waiting_.all()) {
    sequence->recovers = sequence->num_tokens() > sequence->num_prompt_tokens;
    recovering_ = recovering_ || sequence->recovers;
  }
  return refused;
}

std::vector<RequestId> Scheduler::requests_in_flight() const {
  std::vector<RequestId> requests;
  for (const StepInFlight& step : in_flight_) {
    for (const RowInFlight& row : step.rows) {
      const RequestId id = row.sequence->request->id;
      if (std::find(requests.begin(), requests.end(), id) == requests.end()) requests.push_back(id);
    }
  }
  return requests;
}

double Scheduler::newest_step_us(bool* sure) const {
  const StepInFlight& step = in_flight_.back();
  *sure = costs_.least_us(step.work) > 0;
  const bool moves = step.num_loads > 0 || step.num_saves > 0;  // to a disk, perhaps a slow one
  return moves ? 0 : costs_.predict_us(step.work);
}

int Scheduler::num_running_requests() const {
  std::set<RequestId> requests;
  for (const Sequence* sequence : running_) requests.insert(sequence->request->id);
  return static_cast<int>(requests.size());
}

std::int64_t Scheduler::num_computed_tokens() const {
  std::int64_t tokens = 0;
  for (const Sequence* sequence : running_) tokens += sequence->num_applied_tokens;
  return tokens;
}

void Scheduler::lose_group() {
  in_flight_.clear();
  std::vector<Request> searches;
  while (!running_.empty()) {
    Sequence* sequence = running_.back();
    leave_group(sequence);
    if (sequence->request->search != nullptr) {
      sequence->state = SequenceState::kHeld;
      if (std::find(searches.begin(), searches.end(), sequence->request) == searches.end()) {
        searches.push_back(sequence->request);
      }
    } else {
      enqueue(sequence);
    }
  }
  for (auto& [id, sequence] : sequences_) {
    sequence->num_rows_in_flight = 0;
    sequence->num_sampled_in_flight = 0;
  }
  for (const Request& request : searches) restart_search(request, /*preempted=*/false);
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    const auto current = it++;
    if (current->second->state == SequenceState::kFinished) sequences_.erase(current);
  }
  releases_.clear();
  kv_.reset(0, 0);
  epoch_ = 0;
}

// A sequence's last block has room, and so may blocks reserved for drafts; a partly filled block
// that forks share counts once, as far as the longest of them has filled it.
KvUse Scheduler::kv_use() const {
  KvUse use;
  const std::int64_t size = config_.block_size;
  use.allocated = kv_.num_used() * size;
  use.filled = use.allocated;
  absl::flat_hash_map<BlockId, std::int64_t> shared;  // positions not filled
  for (const Sequence* sequence : running_) {
    const auto& blocks = sequence->table.blocks;
    for (std::size_t i = blocks.size(); i-- > 0;) {
      const std::int64_t filled =
          sequence->num_computed_tokens - static_cast<std::int64_t>(i) * size;
      if (filled >= size) break;
      const std::int64_t room = size - std::max<std::int64_t>(0, filled);
      if (!kv_.is_shared(blocks[i])) {
        use.filled -= room;
        continue;
      }
      const auto [entry, is_new] = shared.emplace(blocks[i], room);
      entry->second = std::min(entry->second, room);
    }
  }
  for (const auto& [block, room] : shared) use.filled -= room;
  return use;
}

}  // namespace quire
