// Submitting, the inbox, and the observations that /metrics shows.
#include "coordinator/api/generation.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "common/clock.h"
#include "coordinator/api/request_metrics.h"

namespace quire {

struct Generation::Arrival {
  int first_choice = 0;  // of the prompt, over all prompts
  absl::Time at;
  OutputDelta delta;
};

struct Generation::Inbox {
  std::mutex mutex;
  std::vector<Arrival> arrivals;
  std::shared_ptr<Waker> waker;
};

Generation::Generation(const Api& api, std::shared_ptr<Waker> waker)
    : api_(api), start_(steady_now()), inbox_(std::make_shared<Inbox>()) {
  inbox_->waker = std::move(waker);
}

Generation::~Generation() {
  cancel();
}

void Generation::add_prompt(const Prepared& prepared) {
  const Request& request = prepared.request;
  for (int i = 0; i < request.n; ++i) {
    choices_.push_back(
        {static_cast<int>(prompts_.size()), ChoiceText(api_.model->text, prepared.text)});
  }
  prompts_.push_back({.num_tokens = static_cast<int>(request.prompt.size()),
                      .max_tokens = request.params.max_tokens,
                      .num_open = request.n});
  num_open_ += request.n;
}

// `first_choices`: of each prompt, over all prompts.
std::function<void(int, OutputDelta)> Generation::into_inbox() const {
  std::vector<int> first_choices(prompts_.size(), 0);
  for (std::size_t i = choices_.size(); i-- > 0;) {
    first_choices[static_cast<std::size_t>(choices_[i].prompt)] = static_cast<int>(i);
  }
  return [inbox = inbox_, first_choices](int place, OutputDelta delta) {
    {
      const std::lock_guard lock(inbox->mutex);
      inbox->arrivals.push_back(
          {first_choices[static_cast<std::size_t>(place)], steady_now(), std::move(delta)});
    }
    inbox->waker->wake();
  };
}

absl::Status Generation::submit(std::vector<Prepared> prompts, std::shared_ptr<KeptAnswer> kept) {
  for (const Prepared& prepared : prompts) add_prompt(prepared);
  const auto take = into_inbox();
  if (kept != nullptr) listen(kept);
  for (std::size_t place = 0; place < prompts.size(); ++place) {
    Request& request = prompts[place].request;
    const int at = static_cast<int>(place);
    request.place = at;
    if (kept != nullptr) {
      request.deliver = kept->deliver_to(at);
    } else {
      request.deliver = [take, at](OutputDelta delta) { take(at, std::move(delta)); };
    }
    const auto id = api_.engine->submit(std::move(request));
    if (!id.ok()) {
      cancel();
      return id.status();
    }
    prompts_[place].id = *id;
    if (kept != nullptr) kept->submitted(at, *id);
  }
  return absl::OkStatus();
}

void Generation::attach(std::vector<Prepared> prompts, std::shared_ptr<KeptAnswer> kept,
                        const std::vector<EventId::Choice>& had) {
  is_replay_ = true;
  const std::vector<RequestId> ids = kept->requests();
  for (std::size_t place = 0; place < prompts.size(); ++place) {
    add_prompt(prompts[place]);
    prompts_[place].id = ids[place];
  }
  for (std::size_t i = 0; i < had.size(); ++i) choices_[i].had = had[i];
  listen(std::move(kept));
}

void Generation::listen(std::shared_ptr<KeptAnswer> kept) {
  kept_ = std::move(kept);
  listener_ = kept_->listen(into_inbox());
}

std::vector<Generation::ChoicePiece> Generation::take() {
  std::vector<Arrival> arrivals;
  {
    const std::lock_guard lock(inbox_->mutex);
    arrivals.swap(inbox_->arrivals);
  }
  std::vector<ChoicePiece> out;
  out.reserve(arrivals.size());
  for (Arrival& arrival : arrivals) take(std::move(arrival), out);
  return out;
}

void Generation::take(Arrival arrival, std::vector<ChoicePiece>& out) {
  const int index = arrival.first_choice + arrival.delta.choice;
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  Prompt& prompt = prompts_[static_cast<std::size_t>(choice.prompt)];
  prompt.num_cached = std::max(prompt.num_cached, arrival.delta.num_cached_tokens);
  OutputDelta& delta = arrival.delta;
  if (std::optional<OutputDelta> first = take_had(&choice.had, &delta)) {
    push(index, *std::move(first), arrival.at, true, out);
    if (delta.tokens.empty() && delta.finish == FinishReason::kNone) return;
  }
  push(index, std::move(delta), arrival.at, false, out);
}

void Generation::push(int index, OutputDelta delta, absl::Time at, bool had,
                      std::vector<ChoicePiece>& out) {
  Choice& choice = choices_[static_cast<std::size_t>(index)];
  Prompt& prompt = prompts_[static_cast<std::size_t>(choice.prompt)];
  if (choice.text.finished()) return;
  const int choice_of_prompt = delta.choice;
  ChoiceText::Piece piece = choice.text.push(std::move(delta));
  if (piece.stop_engine) {
    const RequestId id =
        kept_ != nullptr ? kept_->stop(choice.prompt, choice_of_prompt) : prompt.id;
    api_.engine->stop_choice(id, choice_of_prompt);
  }
  observe(choice, piece, at);
  if (choice.text.finished()) {
    --prompt.num_open;
    --num_open_;
  }
  out.push_back({index, choice.text.num_tokens(), had, std::move(piece)});
}

void Generation::observe(Choice& choice, const ChoiceText::Piece& piece, absl::Time at) {
  if (api_.metrics == nullptr || is_replay_) return;
  const Prompt& prompt = prompts_[static_cast<std::size_t>(choice.prompt)];
  if (!piece.tokens.empty()) {
    const bool first = choice.last_token == absl::InfinitePast();
    observe_token(*api_.metrics, first, at - (first ? start_ : choice.last_token));
    choice.last_token = at;
  }
  if (piece.finish == FinishReason::kNone) return;
  observe_finish(*api_.metrics, {.latency = at - start_,
                                 .prompt_tokens = prompt.num_tokens,
                                 .generation_tokens = choice.text.num_tokens(),
                                 .max_tokens = prompt.max_tokens});
}

void Generation::cancel() {
  if (kept_ != nullptr) {
    std::exchange(kept_, nullptr)->leave(listener_);
    for (Prompt& prompt : prompts_) num_open_ -= std::exchange(prompt.num_open, 0);
  }
  for (Prompt& prompt : prompts_) {
    if (prompt.num_open == 0) continue;
    num_open_ -= std::exchange(prompt.num_open, 0);
    api_.engine->cancel(prompt.id);
  }
}

int Generation::num_prompt_tokens(int choice) const {
  const int prompt = choices_[static_cast<std::size_t>(choice)].prompt;
  return prompts_[static_cast<std::size_t>(prompt)].num_tokens;
}

int Generation::total_prompt_tokens() const {
  int total = 0;
  for (const Prompt& prompt : prompts_) total += prompt.num_tokens;
  return total;
}

int Generation::num_cached_tokens(int choice) const {
  const int prompt = choices_[static_cast<std::size_t>(choice)].prompt;
  return prompts_[static_cast<std::size_t>(prompt)].num_cached;
}

int Generation::total_cached_tokens() const {
  int total = 0;
  for (const Prompt& prompt : prompts_) total += prompt.num_cached;
  return total;
}

int Generation::total_tokens() const {
  int total = 0;
  for (const Choice& choice : choices_) total += choice.text.num_tokens();
  return total;
}

}  // namespace quire
