// Newcomers: who is next, what of its prompt is known already, whether it fits; and forks of a
// sequence that runs.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {
namespace {

constexpr int kLpmWindow = 64;  // of those next in line, who may be taken first
constexpr int kRefusalsPerTry = 64;
constexpr int kSoonTokens = 24;       // that a running sequence grows by before long
constexpr int kMostTimesPassed = 16;  // by them, before the first in line is taken anyway

}  // namespace

// Blocks that a running sequence still needs for the tokens it has, and to grow for a while; a beam
// search, all that it may ever need, since preempting it would lose all of its work.
int Scheduler::promised_to(const Sequence& sequence) const {
  const ScheduledRequest& request = *sequence.request;
  if (!request.is_beam()) {
    const int soon =
        std::min(request.max_total_tokens - 1, sequence.num_known_tokens() + kSoonTokens);
    return std::max(0, kv_.blocks_for(soon) - sequence.table.num_blocks());
  }
  if (&sequence != request.open.front()) return 0;
  int held = 0;
  for (const Sequence* beam : request.open) held += beam->table.num_blocks();
  const int shared = request.num_prompt_tokens / config_.block_size;
  held -= static_cast<int>(request.open.size() - 1) * shared;
  return std::max(0, policy::beam_blocks_at_end(request, config_.block_size) - held);
}

int Scheduler::promised_blocks() const {
  int promised = 0;
  for (const Sequence* sequence : running_) promised += promised_to(*sequence);
  return promised;
}

// The first in line; with longest-prefix-match whoever of the next few has most of its prompt in
// the cache, unless the first has been passed over too often.
Sequence* Scheduler::next_waiting() {
  if (alone_.has_value()) return waiting_.first_of(*alone_);
  if (config_.policy != Policy::kLpm) return waiting_.head();
  waiting_.first(kLpmWindow, &window_);
  if (window_.empty()) return nullptr;
  Sequence* first = window_.front();
  if (first->request->times_passed >= kMostTimesPassed) return first;
  Sequence* best = first;
  int most = -1;
  for (Sequence* sequence : window_) {
    const int cached = match(sequence).num_tokens;
    if (cached > most) {
      most = cached;
      best = sequence;
    }
  }
  return best;
}

PrefixHit Scheduler::match(Sequence* sequence) {
  const std::string& scope = sequence->request->scope;
  const std::vector<TokenId>& tokens = sequence->tokens.all();
  const int most = sequence->num_tokens() - 1;  // the last token is computed: it is picked from
  PrefixHit all = kv_.match(scope, tokens, most, /*from_host=*/true);
  if (all.num_loads == 0) return all;
  PrefixHit here = kv_.match(scope, tokens, most, /*from_host=*/false);
  return loads_pay(all, here) ? all : here;
}

double Scheduler::full_step_us() const {
  StepWork step;
  step.add_row(config_.max_model_len, config_.max_num_batched_tokens);
  step.num_samples = 1;
  return costs_.predict_us(step);
}

// Steps of which too little is known count as those before them: a longer context never costs less.
Outlook Scheduler::outlook(const NewRequest& wish, int num_groups) const {
  Outlook outlook;
  const auto count = static_cast<int>(wish.prompt.size());
  const std::string scope = scope_of(wish.tenant, wish.cache_salt);
  int begin = kv_.match(scope, wish.prompt, count - 1, /*from_host=*/true).num_tokens;
  outlook.missing_tokens = count - begin;
  outlook.tokens_before = waiting_.tokens_before(order_of(wish), config_.max_num_seqs * num_groups);
  if (epoch_ == 0) return outlook;
  double last_us = 0.0;
  for (bool known = true; begin < count;) {
    StepWork step;
    step.add_row(begin, std::min(count - begin, config_.max_num_batched_tokens));
    step.num_samples = begin + step.num_tokens == count ? 1 : 0;
    const double us = known ? costs_.least_us(step) : 0.0;
    known = us > 0.0;
    if (known) last_us = us;
    const double share =
        std::min(1.0, static_cast<double>(step.num_tokens) / config_.max_num_batched_tokens);
    outlook.prompt_s += (known ? us : last_us * share) / 1e6;
    begin += step.num_tokens;
  }
  return outlook;
}

// Blocks are loaded where that takes less time than to compute them again, by what both have taken;
// and now and then although it seems not to, or one slow load would be believed for ever.
bool Scheduler::loads_pay(const PrefixHit& all, const PrefixHit& here) {
  if (load_us_ == 0 || !costs_.known()) return true;
  StepWork work;
  work.num_tokens = all.num_tokens - here.num_tokens;
  work.context_tokens = context_tokens_of(here.num_tokens, work.num_tokens);
  const double compute_us = costs_.predict_us(work) - costs_.us_per_step();
  return load_us_ * all.num_loads < compute_us || ++num_refused_loads_ % kRefusalsPerTry == 0;
}

// The hit loses its partial block where there is no room for a copy.
bool Scheduler::fits_now(const Sequence& sequence, int promised, PrefixHit* hit) const {
  const ScheduledRequest& request = *sequence.request;
  const int blocks = request.is_beam() ? policy::beam_blocks_at_end(request, config_.block_size)
                                       : kv_.blocks_for(policy::tokens_to_fit(sequence));
  const auto needed = [&] {
    const int hit_blocks = static_cast<int>(hit->nodes.size()) + (hit->partial == kNoNode ? 0 : 1);
    return blocks - hit_blocks + hit->num_taken;
  };
  policy::Room room{.total_blocks = kv_.num_total(),
                    .available_blocks = kv_.num_available(),
                    .promised_blocks = promised,
                    .needed_blocks = needed(),
                    .anyone_running = !running_.empty()};
  if (policy::may_admit(room)) return true;
  if (hit->partial == kNoNode) return false;
  kv_.forget_partial(hit);
  room.needed_blocks = needed();
  return policy::may_admit(room);
}

// Whoever is next holds back those behind it: they would take the blocks it waits for.
void Scheduler::admit_waiting(PrefillShare* share, Draft* draft) {
  newcomer_lacks_room_ = false;
  if (draft->preempted || waiting_.empty() || draft->budget_tokens == 0) return;
  int promised = promised_blocks();
  while (draft->budget_tokens > 0 && draft->budget_picks > 0) {
    if (num_open_slots() <= 0) return;
    Sequence* sequence = next_waiting();
    if (sequence == nullptr || sequence->num_rows_in_flight > 0) return;
    const int slots = sequence->request->is_beam() ? sequence->request->beams.width : 1;
    newcomer_lacks_room_ = num_open_slots() < slots;
    if (newcomer_lacks_room_) return;
    PrefixHit hit = match(sequence);
    const int most = share->most_tokens(hit.num_tokens, sequence->num_tokens() - hit.num_tokens);
    if (most <= 0) return;
    newcomer_lacks_room_ = !fits_now(*sequence, promised, &hit);
    if (newcomer_lacks_room_) return;
    if (Sequence* first = waiting_.head(); first != sequence) ++first->request->times_passed;
    admit(sequence, hit, draft);
    const int begin = sequence->num_computed_tokens;
    const int num_tokens = grant_size(*sequence, most, *draft);
    share->take(begin, num_tokens);
    grant(sequence, num_tokens, draft);
    promised += promised_to(*sequence);
  }
}

void Scheduler::admit(Sequence* sequence, const PrefixHit& hit, Draft* draft) {
  ScheduledRequest& request = *sequence->request;
  waiting_.remove(sequence);
  kv_.attach(hit, request.priority, &sequence->table);
  sequence->num_computed_tokens = hit.num_tokens;
  sequence->num_applied_tokens = hit.num_tokens;
  if (!request.is_warm) {
    request.is_warm = true;
    request.num_cached_tokens = hit.num_tokens;
    if (config_.prefix_caching) {
      counts_.prefix_queries += static_cast<std::uint64_t>(request.num_prompt_tokens);
      counts_.prefix_hits += static_cast<std::uint64_t>(hit.num_tokens);
    }
  }
  if (request.is_beam()) {
    request.reserved_slots = request.beams.width - 1;
    reserved_slots_ += request.reserved_slots;
  }
  AdmitRow row;
  row.tokens = sequence->tokens.all();
  enter_slot(sequence, std::move(row), draft);
}

void Scheduler::enter_slot(Sequence* sequence, AdmitRow row, Draft* draft) {
  sequence->state = SequenceState::kRunning;
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
  running_.insert(std::lower_bound(running_.begin(), running_.end(), sequence, Earlier()),
                  sequence);
  row.slot = sequence->slot;
  row.num_prompt_tokens = sequence->num_prompt_tokens;
  row.sample_index = sequence->choice;
  row.params = sequence->request->params;
  draft->admits.push_back(std::move(row));
}

// `child` gets a slot and holds what `parent` holds.
void Scheduler::fork(Sequence* parent, Sequence* child, Draft* draft) {
  kv_.fork(&parent->table, &child->table);
  child->num_applied_tokens = parent->num_applied_tokens;
  AdmitRow row;
  row.fork_of = parent->slot;
  enter_slot(child, std::move(row), draft);
}

// The prompt will be computed up to `end` by this plan: the other choices pick from the same
// logits. Those that find no slot wait; the prefix cache has their prompt then.
void Scheduler::fork_choices(Sequence* parent, int end, Draft* draft) {
  const std::vector<Sequence*> held = std::exchange(parent->request->held, {});
  for (Sequence* child : held) {
    const bool room = num_open_slots() > 0;
    if (!room || draft->budget_picks == 0) {
      enqueue(child);
      continue;
    }
    fork(parent, child, draft);
    child->num_computed_tokens = end;
    child->granted = true;
    draft->budget_picks -= 1;
    draft->work.num_rows += 1;
    draft->work.num_samples += 1;
    draft->grants.push_back({child, 0, true});
  }
}

}  // namespace quire
