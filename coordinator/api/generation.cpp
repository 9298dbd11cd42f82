// Submitting, the inbox, and the observations that /metrics shows.
#include "coordinator/api/generation.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
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
    : api_(api), start_(absl::Now()), inbox_(std::make_shared<Inbox>()) {
  inbox_->waker = std::move(waker);
}

Generation::~Generation() {
  cancel();
}

absl::Status Generation::submit(std::vector<Prepared> prompts) {
  for (Prepared& prepared : prompts) {
    Request& request = prepared.request;
    const int first_choice = num_choices();
    const int n = request.n;
    Prompt prompt{.num_tokens = static_cast<int>(request.prompt.size()),
                  .max_tokens = request.params.max_tokens,
                  .num_open = n};
    request.deliver = [inbox = inbox_, first_choice](OutputDelta delta) {
      {
        const std::lock_guard lock(inbox->mutex);
        inbox->arrivals.push_back({first_choice, absl::Now(), std::move(delta)});
      }
      inbox->waker->wake();
    };
    const auto id = api_.engine->submit(std::move(request));
    if (!id.ok()) {
      cancel();
      return id.status();
    }
    prompt.id = *id;
    for (int i = 0; i < n; ++i) {
      choices_.push_back(
          {static_cast<int>(prompts_.size()), ChoiceText(api_.model->text, prepared.text)});
    }
    prompts_.push_back(prompt);
    num_open_ += n;
  }
  return absl::OkStatus();
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
  if (choice.text.finished()) return;
  const int choice_of_prompt = arrival.delta.choice;
  ChoiceText::Piece piece = choice.text.push(std::move(arrival.delta));
  if (piece.stop_engine) api_.engine->stop_choice(prompt.id, choice_of_prompt);
  observe(choice, piece, arrival.at);
  if (choice.text.finished()) {
    --prompt.num_open;
    --num_open_;
  }
  out.push_back({index, choice.text.num_tokens(), std::move(piece)});
}

void Generation::observe(Choice& choice, const ChoiceText::Piece& piece, absl::Time at) {
  if (api_.metrics == nullptr) return;
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
