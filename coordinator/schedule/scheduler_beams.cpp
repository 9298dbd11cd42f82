// Beam search: one step per token for all beams of a request. A step's result opens the next beams;
// the next plan continues, forks and drops the sequences of the last ones accordingly.
//
// Nothing of a search is kept when it gives way or the group is lost: it begins anew, so it is
// admitted only where all of it fits.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

void Scheduler::begin_search(const Request& request, std::vector<TokenId> prompt) {
  std::vector<TokenId> stops = request->params.stop_token_ids;
  if (!request->params.ignore_eos)
    stops.insert(stops.end(), config_.eos.begin(), config_.eos.end());
  request->search = std::make_unique<BeamSearch>(
      request->beams, std::move(stops), request->max_total_tokens - request->num_prompt_tokens);
  request->params.beam_width = request->beams.width;
  request->params.temperature = 0;
  request->params.logprobs = request->search->num_candidates();
  request->open = {make_sequence(request, 0, std::move(prompt))};
  enqueue(request->open.front());
}

// Its beams have left the group.
void Scheduler::restart_search(const Request& request, bool preempted) {
  const std::vector<Sequence*> beams = std::exchange(request->open, {});
  std::vector<TokenId> prompt = beams.front()->tokens.all();
  prompt.resize(static_cast<std::size_t>(request->num_prompt_tokens));
  request->due.clear();
  reserved_slots_ -= std::exchange(request->reserved_slots, 0);
  for (Sequence* beam : beams) finish(beam);
  begin_search(request, std::move(prompt));
  request->open.front()->preempted = preempted;
}

void Scheduler::grant_beams(ScheduledRequest* request, Draft* draft) {
  const auto count = static_cast<int>(request->due.size());
  if (draft->budget_tokens < count || draft->budget_picks < count) return;
  if (!make_room(request->open.front(), draft)) return;
  open_beams(request, draft);
  for (Sequence* beam : request->open) grant(beam, 1, draft);
}

// The sequence of a beam goes on as the first of the beams that continue it; others fork from it,
// before it changes.
void Scheduler::open_beams(ScheduledRequest* request, Draft* draft) {
  const std::vector<BeamSearch::Open> due = std::exchange(request->due, {});
  const std::vector<Sequence*> before = std::exchange(request->open, {});
  const Request shared = before.front()->request;
  std::vector<bool> goes_on(before.size(), false);
  for (const BeamSearch::Open& open : due) goes_on[static_cast<std::size_t>(open.parent)] = true;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (!goes_on[i]) finish(before[i]);
  }
  std::vector<bool> taken(before.size(), false);
  for (const BeamSearch::Open& open : due) {
    const auto parent = static_cast<std::size_t>(open.parent);
    if (!taken[parent]) {
      taken[parent] = true;
      request->open.push_back(before[parent]);
      continue;
    }
    Sequence* child = make_sequence(shared, 0, before[parent]->tokens.all());
    fork(before[parent], child, draft);
    child->num_computed_tokens = before[parent]->num_computed_tokens;
    request->open.push_back(child);
  }
  for (std::size_t i = 0; i < due.size(); ++i) request->open[i]->tokens.push_back(due[i].token);
  reserved_slots_ -= request->reserved_slots;
  request->reserved_slots = request->beams.width - static_cast<int>(request->open.size());
  reserved_slots_ += request->reserved_slots;
}

// One pick of every open beam, in order.
void Scheduler::apply_beams(const Request& request, absl::Span<RowResult> results,
                            std::vector<Gain>* gains) {
  if (std::any_of(results.begin(), results.end(), [](const RowResult& r) { return r.no_number; })) {
    return fail_search(request, gains);
  }
  std::vector<BeamCandidates> candidates;
  candidates.reserve(results.size());
  for (const RowResult& result : results) {
    candidates.push_back({absl::MakeConstSpan(result.logprobs).subspan(1)});
  }
  const std::vector<BeamSearch::Open>& next = request->search->step(candidates);
  if (next.empty()) return end_search(request, /*early=*/false, gains);
  request->due = next;
}

// A beam whose logits are no numbers cannot be compared with the others.
void Scheduler::fail_search(const Request& request, std::vector<Gain>* gains) {
  for (int choice = 0; choice < request->n; ++choice) {
    Gain& gain = gains->emplace_back();
    gain.request = request->id;
    gain.choice = choice;
    gain.end = EndReason::kNoNumber;
  }
  end_request(request);
}

void Scheduler::end_search(const Request& request, bool early, std::vector<Gain>* gains) {
  const bool with_logprobs = request->wants_logprobs;
  std::vector<BeamSearch::Hypothesis> best = request->search->take_best(request->n);
  for (int choice = 0; choice < request->n; ++choice) {
    Gain& gain = gains->emplace_back();
    gain.request = request->id;
    gain.choice = choice;
    gain.end = early ? EndReason::kNone : EndReason::kLength;
    if (choice == 0) gain.num_cached_tokens = request->num_cached_tokens;
    if (choice >= static_cast<int>(best.size())) continue;  // no other sequence is possible
    BeamSearch::Hypothesis& hypothesis = best[static_cast<std::size_t>(choice)];
    if (hypothesis.stopped) gain.end = EndReason::kStop;
    for (std::size_t i = 0; with_logprobs && i < hypothesis.tokens.size(); ++i) {
      gain.logprobs.push_back({{hypothesis.tokens[i], hypothesis.logprobs[i]}});
    }
    gain.tokens.assign(hypothesis.tokens.begin(), hypothesis.tokens.end());
  }
  end_request(request);
}

}  // namespace quire
