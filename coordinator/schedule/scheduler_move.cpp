// What whoever chooses between groups wants to know of one, and how a request leaves a scheduler
// for another's.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

int Scheduler::blocks_to_begin(const Sequence& sequence) const {
  if (sequence.is_beam) return blocks_at_end(*sequence.request);
  return kv_.blocks_for(policy::tokens_to_fit(sequence));
}

int Scheduler::blocks_at_end(const ScheduledRequest& request) const {
  return request.is_beam() ? policy::beam_blocks_at_end(request, config_.block_size)
                           : policy::blocks_at_end(request.max_total_tokens, config_.block_size);
}

Scheduler::Cached Scheduler::cached(Sequence* sequence) const {
  const PrefixHit hit = kv_.match(sequence->request->scope, sequence->tokens.all(),
                                  sequence->num_tokens() - 1, /*from_host=*/true);
  const int blocks = static_cast<int>(hit.nodes.size()) + (hit.partial == kNoNode ? 0 : 1);
  return {hit.num_tokens, blocks - hit.num_taken};
}

GroupLoad Scheduler::load() const {
  GroupLoad load;
  if (epoch_ == 0) return load;
  load.idle = running_.empty() && waiting_.empty();
  load.free_seqs = num_open_slots() - waiting_.size();
  load.free_blocks =
      kv_.num_available() - promised_blocks() - policy::watermark_blocks(kv_.num_total());
  for (const Sequence* sequence : waiting_.all()) {
    load.free_blocks -= blocks_to_begin(*sequence);
    load.waiting_tokens += sequence->num_tokens();
  }
  load.prompt_tokens = load.waiting_tokens;
  for (const Sequence* sequence : running_) {
    if (!sequence->may_grow()) continue;
    if (sequence->num_missing_tokens() > 1) load.prompt_tokens += sequence->num_missing_tokens();
    load.streams.add_row(sequence->num_known_tokens(), 1);
  }
  load.streams.num_samples = load.streams.num_rows;
  return load;
}

namespace {

bool rests(const ScheduledRequest& request) {
  const auto is_still = [](const Sequence* sequence) {
    return sequence == nullptr ||
           (sequence->state != SequenceState::kRunning && sequence->num_rows_in_flight == 0);
  };
  return std::all_of(request.choices.begin(), request.choices.end(), is_still) &&
         std::all_of(request.open.begin(), request.open.end(), is_still);
}

}  // namespace

Sequence* Scheduler::first_movable() const {
  WaitingQueue::Walk walk(waiting_, std::vector<double>(shares_->service().size(), 0.0));
  while (Sequence* sequence = walk.next()) {
    if (rests(*sequence->request)) return sequence;
  }
  return nullptr;
}

Scheduler::Handover Scheduler::hand_over(RequestId id) {
  const Request request = requests_.at(id);
  QUIRE_CHECK(rests(*request));
  Handover handover;
  if (request->is_warm) {
    handover.admission = {.num_cached_tokens = request->num_cached_tokens,
                          .gained = request->gained};
  }
  const auto num_prompt = static_cast<std::ptrdiff_t>(request->num_prompt_tokens);
  for (Sequence* sequence : request->choices) {
    ChoicePast& past = handover.past.emplace_back();
    past.ended = sequence == nullptr;
    if (past.ended) continue;
    const std::vector<TokenId>& tokens = sequence->tokens.all();
    past.tokens.assign(tokens.begin() + num_prompt, tokens.end());
    if (handover.prompt.empty()) {
      handover.prompt.assign(tokens.begin(), tokens.begin() + num_prompt);
    }
  }
  if (request->is_beam()) handover.prompt = request->open.front()->tokens.all();  // it begins anew
  end_request(request);
  return handover;
}

}  // namespace quire
