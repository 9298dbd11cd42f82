#include "coordinator/api/kept_answer.h"

#include <algorithm>
#include <utility>

#include "common/clock.h"

namespace quire {
namespace {

// By the model itself. What a deadline, an error or the reader ended may be behind the client.
bool is_whole(const OutputDelta& choice) {
  return choice.finish == FinishReason::kLength ||
         (choice.finish == FinishReason::kStop && choice.stop_token >= 0);
}

std::size_t bytes_of(const OutputDelta& delta) {
  std::size_t bytes = sizeof(OutputDelta) + delta.tokens.size() * sizeof(TokenId);
  for (const auto& of_token : delta.logprobs) bytes += of_token.size() * sizeof(TokenLogprob);
  return bytes;
}

}  // namespace

void KeptAnswer::add_prompt(std::vector<OutputDelta> past) {
  std::lock_guard lock(mutex_);
  for (const OutputDelta& choice : past) {
    num_open_ += choice.finish == FinishReason::kNone ? 1 : 0;
    num_bytes_ += bytes_of(choice);
  }
  pasts_.push_back(std::move(past));
  ids_.push_back(0);
  num_bytes_ += record_->body.size();
  ended_at_ = num_open_ == 0 ? steady_now() : absl::InfiniteFuture();
}

DeliverFn KeptAnswer::deliver_to(int place) {
  return [self = shared_from_this(), place](OutputDelta delta) {
    self->take(place, std::move(delta));
  };
}

void KeptAnswer::submitted(int place, RequestId id) {
  std::lock_guard lock(mutex_);
  ids_[static_cast<std::size_t>(place)] = id;
}

void KeptAnswer::take(int place, OutputDelta delta) {
  std::lock_guard lock(mutex_);
  OutputDelta& past =
      pasts_[static_cast<std::size_t>(place)][static_cast<std::size_t>(delta.choice)];
  if (past.finish != FinishReason::kNone) return;
  past.append(delta);
  past.request = delta.request;
  num_bytes_ += bytes_of(delta);
  if (delta.finish != FinishReason::kNone && --num_open_ == 0) ended_at_ = steady_now();
  for (const auto& [name, listener] : listeners_) listener(place, delta);
}

RequestId KeptAnswer::stop(int place, int choice) {
  std::lock_guard lock(mutex_);
  OutputDelta& past = pasts_[static_cast<std::size_t>(place)][static_cast<std::size_t>(choice)];
  const RequestId id = ids_[static_cast<std::size_t>(place)];
  if (past.finish != FinishReason::kNone) return id;
  past.finish = FinishReason::kStop;
  if (--num_open_ == 0) ended_at_ = steady_now();
  return id;
}

void KeptAnswer::fail(const std::string& error) {
  std::vector<std::pair<int, OutputDelta>> ends;
  {
    std::lock_guard lock(mutex_);
    for (std::size_t place = 0; place < pasts_.size(); ++place) {
      for (const OutputDelta& choice : pasts_[place]) {
        if (choice.finish != FinishReason::kNone) continue;
        OutputDelta end;
        end.choice = choice.choice;
        end.finish = FinishReason::kError;
        end.error = error;
        ends.emplace_back(static_cast<int>(place), std::move(end));
      }
    }
  }
  for (auto& [place, end] : ends) take(place, std::move(end));
}

int KeptAnswer::listen(Listener listener) {
  std::lock_guard lock(mutex_);
  for (std::size_t place = 0; place < pasts_.size(); ++place) {
    for (const OutputDelta& past : pasts_[place]) {
      if (past.tokens.empty() && past.finish == FinishReason::kNone) continue;
      listener(static_cast<int>(place), past);
    }
  }
  listeners_.emplace(++last_listener_, std::move(listener));
  left_at_ = absl::InfiniteFuture();
  return last_listener_;
}

void KeptAnswer::leave(int listener) {
  std::lock_guard lock(mutex_);
  if (listeners_.erase(listener) > 0 && listeners_.empty()) left_at_ = steady_now();
}

bool KeptAnswer::covers(int choice, int num_tokens, int max_tokens) const {
  std::lock_guard lock(mutex_);
  for (const std::vector<OutputDelta>& past : pasts_) {
    const int n = static_cast<int>(past.size());
    if (choice < n) {
      const OutputDelta& known = past[static_cast<std::size_t>(choice)];
      return num_tokens <= (is_whole(known) ? static_cast<int>(known.tokens.size()) : max_tokens);
    }
    choice -= n;
  }
  return false;
}

std::vector<int> KeptAnswer::shape() const {
  std::lock_guard lock(mutex_);
  std::vector<int> shape;
  for (const std::vector<OutputDelta>& past : pasts_)
    shape.push_back(static_cast<int>(past.size()));
  return shape;
}

bool KeptAnswer::ended() const {
  std::lock_guard lock(mutex_);
  return num_open_ == 0;
}

std::vector<RequestId> KeptAnswer::requests() const {
  std::lock_guard lock(mutex_);
  return ids_;
}

absl::Time KeptAnswer::left_at() const {
  std::lock_guard lock(mutex_);
  return left_at_;
}

absl::Time KeptAnswer::ended_at() const {
  std::lock_guard lock(mutex_);
  return ended_at_;
}

std::optional<OutputDelta> take_had(EventId::Choice* had, OutputDelta* delta) {
  if (had->ended) return std::exchange(*delta, OutputDelta());
  const auto count = std::min<std::ptrdiff_t>(had->num_tokens, std::ssize(delta->tokens));
  if (count == 0) return std::nullopt;
  had->num_tokens -= static_cast<int>(count);
  OutputDelta first = delta->part(0, static_cast<std::size_t>(count));
  delta->drop_first(static_cast<std::size_t>(count));
  return first;
}

std::size_t KeptAnswer::num_bytes() const {
  std::lock_guard lock(mutex_);
  return num_bytes_;
}

}  // namespace quire
