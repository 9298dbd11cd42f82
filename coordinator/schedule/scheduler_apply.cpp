// Applies the result of the oldest plan in flight, and checks that workers keep to the plan.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {
namespace {

bool contains(const std::vector<TokenId>& list, TokenId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

constexpr double kLoadForgets = 0.1;

}  // namespace

absl::StatusOr<std::vector<Gain>> Scheduler::apply(StepResult result) {
  QUIRE_RETURN_IF_ERROR(check(result));
  const StepInFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  learn_costs(step, static_cast<double>(result.busy_us));
  std::vector<Gain> gains;
  gains.reserve(result.rows.size());
  absl::Span<RowResult> picks = absl::MakeSpan(result.rows);
  for (std::size_t i = 0; i < step.rows.size();) {
    const RowInFlight& row = step.rows[i];
    if (i + kAhead < step.rows.size()) prefetch(*step.rows[i + kAhead].sequence);
    // Beams of one request stand together.
    const bool is_search = row.num_picks > 0 && row.sequence->is_beam;
    std::size_t end = i + 1;
    while (is_search && end < step.rows.size() &&
           step.rows[end].sequence->request == row.sequence->request) {
      ++end;
    }
    const auto rows = absl::MakeConstSpan(step.rows).subspan(i, end - i);
    i = end;
    if (is_search) {
      apply_search_rows(rows, picks.subspan(0, rows.size()), &gains);
      picks.remove_prefix(rows.size());
    } else {
      apply_row(row, picks.subspan(0, static_cast<std::size_t>(row.num_picks)), &gains);
      picks.remove_prefix(static_cast<std::size_t>(row.num_picks));
    }
  }
  return gains;
}

void Scheduler::learn_costs(const StepInFlight& step, double us) {
  if (step.rows.empty() || us <= 0) return;
  us = std::max(1.0, us - step.num_saves * load_us_);  // a save costs about what a load does
  if (step.num_loads == 0) return costs_.observe(step.work, us);
  if (!costs_.known()) return;
  const double each = std::max(1.0, us - costs_.predict_us(step.work)) / step.num_loads;
  load_us_ = load_us_ == 0 ? each : load_us_ + kLoadForgets * (each - load_us_);
}

// The row's positions are computed: what is full of its blocks may be found by others.
void Scheduler::settle_row(const RowInFlight& row, int end) {
  Sequence& sequence = *row.sequence;
  sequence.num_rows_in_flight -= 1;
  if (row.life != sequence.life || sequence.state != SequenceState::kRunning) return;
  sequence.num_applied_tokens = end;
  if (!kv_.has_to_offer(end, sequence.table)) return;
  const ScheduledRequest& request = *sequence.request;
  kv_.offer(request.scope, sequence.tokens.all(), std::min(end, sequence.num_tokens()),
            request.priority, &sequence.table);
}

void Scheduler::apply_search_rows(absl::Span<const RowInFlight> rows, absl::Span<RowResult> picks,
                                  std::vector<Gain>* gains) {
  const Request request = rows.front().sequence->request;
  const bool current = rows.front().life == rows.front().sequence->life &&
                       rows.front().sequence->state == SequenceState::kRunning;
  for (const RowInFlight& row : rows) settle_row(row, row.end);
  if (current) apply_beams(request, picks, gains);
  for (const RowInFlight& row : rows) {
    const auto found = sequences_.find(row.id);
    if (found != sequences_.end()) forget_if_done(found->second.get());
  }
}

void Scheduler::apply_row(const RowInFlight& row, absl::Span<RowResult> picks,
                          std::vector<Gain>* gains) {
  Sequence& sequence = *row.sequence;
  const bool has_drafts = picks.size() > 1;
  if (picks.size() == 1) sequence.num_sampled_in_flight -= 1;
  const bool ended = sequence.state == SequenceState::kFinished;
  std::size_t num_gained = picks.size();
  int computed = row.end;
  if (has_drafts && !ended) {
    // A draft is right if it is what was picked in its place.
    const bool current = row.life == sequence.life;
    num_gained = 1;
    while (current && num_gained < picks.size() &&
           picks[num_gained - 1].token == sequence.drafts[num_gained - 1]) {
      ++num_gained;
    }
    computed -= static_cast<int>(picks.size() - num_gained);
    if (current) {
      sequence.draft_gain.observe(static_cast<int>(picks.size()) - 1,
                                  static_cast<int>(num_gained) - 1);
      counts_.accepted_draft_tokens += num_gained - 1;
      sequence.num_computed_tokens = computed;
      sequence.drafts.clear();
    }
  }
  if (ended) num_gained = 0;
  EndReason end = EndReason::kNone;
  if (num_gained > 0) {
    Gain& gain = gains->emplace_back();
    gain.request = sequence.request_id;
    gain.choice = sequence.choice;
    const bool is_first = sequence.num_tokens() == sequence.num_prompt_tokens;
    for (std::size_t i = 0; i < num_gained && end == EndReason::kNone; ++i) {
      if (picks[i].no_number) {
        end = EndReason::kNoNumber;
        break;
      }
      sequence.tokens.push_back(picks[i].token);
      gain.tokens.push_back(picks[i].token);
      if (sequence.returns_logprobs) gain.logprobs.push_back(std::move(picks[i].logprobs));
      end = end_of(sequence);
    }
    gain.end = end;
    if (is_first && !std::exchange(sequence.request->gained, true)) {
      gain.num_cached_tokens = sequence.request->num_cached_tokens;
    }
    if (sequence.drafter != nullptr) {
      if (!has_drafts && sequence.guess >= 0 && !gain.tokens.empty()) {
        sequence.draft_gain.observe(1, gain.tokens[0] == sequence.guess ? 1 : 0);
      }
      sequence.drafter->extend(gain.tokens);
    }
  }
  settle_row(row, computed);
  if (end != EndReason::kNone) {
    const Request request = sequence.request;
    end_choice(request.get(), sequence.choice);
    return finish(&sequence);
  }
  if (num_gained > 0 && sequence.state == SequenceState::kRunning) want_drafts(&sequence);
  forget_if_done(&sequence);
}

// Drafts need the newest token. Where none go of themselves, now and then one row has some: nobody
// would learn otherwise what they cost. How often they are right is known without.
void Scheduler::want_drafts(Sequence* sequence) {
  sequence->wanted_drafts = 0;
  sequence->guess = -1;
  const int room = sequence->max_total_tokens - sequence->num_known_tokens() - 1;
  if (!may_draft_ || room <= 0 || sequence->is_beam) return;
  if (sequence->drafter == nullptr) {
    if (sequence->request->params.adjusts_logits()) return;
    sequence->drafter =
        std::make_unique<NgramDrafter>(config_.prompt_lookup_min, config_.prompt_lookup_max);
    sequence->drafter->extend(sequence->tokens.all());
  }
  sequence->guess = sequence->drafter->next(sequence->tokens.all());
  if (sequence->guess < 0) return;
  const DraftGain& gain = sequence->draft_gain;
  const DraftPrice price = draft_price(*sequence);
  const int count = gain.worthwhile(std::min(room, config_.num_speculative_tokens), num_running(),
                                    price.step_us, price.draft_us);
  sequence->wanted_drafts = count > 0 ? count : try_is_due() ? 1 : 0;
  sequence->net_draft_tokens =
      static_cast<float>(gain.net_tokens(count, num_running(), price.step_us, price.draft_us));
}

Scheduler::DraftPrice Scheduler::draft_price(const Sequence& sequence) const {
  StepWork step;
  step.num_rows = step.num_tokens = step.num_samples = num_running();
  step.context_reads = static_cast<double>(num_running()) * sequence.num_tokens();
  step.context_tokens = step.context_reads;
  return {.step_us = costs_.known() ? costs_.predict_us(step) : 0,
          .draft_us = costs_.us_per_draft_token(sequence.num_tokens(), step.num_tokens)};
}

EndReason Scheduler::end_of(const Sequence& sequence) const {
  if (sequence.ends_on_token) {
    const TokenId last = sequence.tokens.back();
    const SamplingParams& params = sequence.request->params;
    if (!params.ignore_eos && contains(config_.eos, last)) return EndReason::kStop;
    if (contains(params.stop_token_ids, last)) return EndReason::kStop;
  }
  return sequence.num_tokens() >= sequence.max_total_tokens ? EndReason::kLength : EndReason::kNone;
}

absl::Status Scheduler::check(const StepResult& result) const {
  if (result.epoch != epoch_ || in_flight_.empty() || result.step != oldest_step()) {
    return absl::InternalError(absl::StrCat("The workers answered step ", result.step, " of epoch ",
                                            result.epoch, ", but step ", oldest_step(),
                                            " of epoch ", epoch_, " was due."));
  }
  std::size_t next = 0;
  const auto& rows = in_flight_.front().rows;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (int pick = 0; pick < rows[i].num_picks; ++pick, ++next) {
      if (next == result.rows.size() || result.rows[next].row != static_cast<int>(i)) {
        return absl::InternalError(absl::StrCat(
            "The workers' result of step ", result.step, " lacks pick ", pick, " of row ", i,
            next == result.rows.size()
                ? ""
                : absl::StrCat("; row ", result.rows[next].row, " is in its place"),
            "."));
      }
      QUIRE_RETURN_IF_ERROR(check_pick(result.rows[next], rows[i]));
    }
  }
  if (next != result.rows.size()) {
    return absl::InternalError(absl::StrCat("The workers' result of step ", result.step,
                                            " has row ", result.rows[next].row,
                                            ", which does not sample in that plan."));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::check_pick(const RowResult& pick, const RowInFlight& row) const {
  const auto known = [this](TokenId token) { return token >= 0 && token < config_.vocab; };
  if (!known(pick.token)) {
    return absl::InternalError(absl::StrCat("The workers sampled token ", pick.token,
                                            ", but the vocabulary has ", config_.vocab, "."));
  }
  if (!row.has_logprobs || pick.no_number) return absl::OkStatus();
  const SamplingParams& params = row.sequence->request->params;
  if (pick.logprobs.empty() || pick.logprobs[0].token != pick.token) {
    return absl::InternalError(absl::StrCat("The workers sampled token ", pick.token,
                                            " without its logprob, which was asked for."));
  }
  const int best = std::min(params.logprobs, config_.vocab);
  if (params.beam_width > 0 && static_cast<int>(pick.logprobs.size()) < best + 1) {
    return absl::InternalError(absl::StrCat("The workers sent ", pick.logprobs.size() - 1,
                                            " continuations of a beam instead of ", best, "."));
  }
  for (const TokenLogprob& entry : pick.logprobs) {
    if (!known(entry.token)) {
      return absl::InternalError(absl::StrCat("The workers gave a logprob of token ", entry.token,
                                              ", but the vocabulary has ", config_.vocab, "."));
    }
  }
  return absl::OkStatus();
}

}  // namespace quire
