// One Generate call; the rules are in grpc_stream.h.
#include "coordinator/api/grpc_stream.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "coordinator/api/request_metrics.h"

namespace quire {
namespace {

// Of a message: with 20 logprobs for each a few hundred kilobytes, where clients take 4 MB.
constexpr int kMostTokens = 1024;

// A rough size, cheap enough to add up per delta.
std::size_t bytes_of(const ChoiceText::Piece& piece) {
  std::size_t bytes = 64 + piece.text.size() + 5 * piece.tokens.size();
  for (const TokenLogprobText& entry : piece.logprobs) bytes += 32 * (1 + entry.top.size());
  return bytes;
}

void set_logprob(const NamedLogprob& from, v1::TokenLogprobs* to) {
  to->set_token_id(from.token);
  to->set_logprob(from.logprob);
  to->set_text(to_valid_utf8(from.bytes));
}

void append(ChoiceText::Piece piece, v1::Delta& delta) {
  delta.mutable_text()->append(piece.text);
  delta.mutable_token_ids()->Add(piece.tokens.begin(), piece.tokens.end());
  for (const TokenLogprobText& entry : piece.logprobs) {
    v1::TokenLogprobs* logprobs = delta.add_logprobs();
    set_logprob(entry.chosen, logprobs);
    for (const NamedLogprob& top : entry.top) set_logprob(top, logprobs->add_top());
  }
  if (piece.finish == FinishReason::kNone) return;
  delta.set_finish_reason(finish_reason_name(piece.finish));
  if (!piece.stop_string.empty()) {
    delta.set_stop_reason(std::move(piece.stop_string));
  } else if (piece.stop_token >= 0) {
    delta.set_stop_reason(absl::StrCat(piece.stop_token));
  }
}

}  // namespace

void GenerateStream::begin(const Prepared& prepared, const std::vector<EventId::Choice>& had) {
  const int n = prepared.request.n;
  prompt_tokens_ = static_cast<int>(prepared.request.prompt.size());
  max_tokens_ = prepared.request.params.max_tokens;
  num_returned_ = prepared.num_returned;
  hide_logprobs_ = prepared.hide_logprobs;
  whole_ = prepared.request.beams.width > 0 || num_returned_ < n;
  for (int i = 0; i < n; ++i) choices_.push_back({ChoiceText(api_.model->text, prepared.text)});
  for (std::size_t i = 0; i < had.size(); ++i) choices_[i].had = had[i];
  absl::MutexLock lock(&mutex_);
  waiting_.resize(static_cast<std::size_t>(n));
  open_choices_ = n;
  if (num_returned_ == n) return;
  best_of_.emplace(n);
  held_ = true;
}

void GenerateStream::submitted(RequestId id) {
  absl::MutexLock lock(&mutex_);
  id_ = id;
  if (stopped_ && (kept_ == nullptr || cancelled_)) api_.engine->cancel(id);
}

void GenerateStream::listens(std::shared_ptr<KeptAnswer> kept, int listener) {
  absl::MutexLock lock(&mutex_);
  kept_ = std::move(kept);
  listener_ = listener;
  if (stopped_) kept_->leave(listener_);
}

// Known to the client: its text is made, for what follows counts on it, and nothing is sent.
void GenerateStream::count_had(int choice, OutputDelta had) {
  ChoiceText::Piece piece = choices_[static_cast<std::size_t>(choice)].text.push(std::move(had));
  absl::MutexLock lock(&mutex_);
  if (piece.stop_engine && kept_ != nullptr) {
    api_.engine->stop_choice(kept_->stop(0, choice), choice);
  }
  if (end_.has_value()) return;
  completion_tokens_ += static_cast<std::uint32_t>(piece.tokens.size());
  if (piece.finish != FinishReason::kNone) end_choice(piece.finish, piece.error);
  pump();
}

void GenerateStream::take(OutputDelta delta) {
  for (OutputDelta& part : OutputDelta::parts_of(std::move(delta), kMostTokens)) {
    take_part(std::move(part));
  }
}

void GenerateStream::take_part(OutputDelta delta) {
  const int choice = delta.choice;
  const RequestId request = delta.request;
  const auto cached = static_cast<std::uint32_t>(delta.num_cached_tokens);
  Choice& target = choices_[static_cast<std::size_t>(choice)];
  if (std::optional<OutputDelta> first = take_had(&target.had, &delta)) {
    count_had(choice, *std::move(first));
  }
  ChoiceText::Piece piece = target.text.push(std::move(delta));
  if (piece.stop_engine) {
    absl::MutexLock lock(&mutex_);
    api_.engine->stop_choice(kept_ != nullptr ? kept_->stop(0, choice) : request, choice);
  }
  if (piece.empty()) return;
  absl::MutexLock lock(&mutex_);
  if (end_.has_value()) return;
  cached_tokens_ = std::max(cached_tokens_, cached);
  observe(target, piece);
  add(choice, std::move(piece));
  check_reader();
  pump();
}

void GenerateStream::check_reader() {
  const auto too_slow = [](const auto&... words) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                        absl::StrCat("The client reads too slowly: ", words...));
  };
  // A kept answer is held anyhow; what is sent of it again may come at once.
  if (!whole_ && kept_ == nullptr && waiting_bytes_ > setup_.max_buffered_bytes) {
    fail_locked(too_slow("more than ", setup_.max_buffered_bytes, " bytes wait for it."));
  } else if (writing_ && steady_now() - write_began_ > setup_.write_timeout) {
    fail_locked(too_slow("it took nothing for ", absl::FormatDuration(setup_.write_timeout), "."));
  }
}

void GenerateStream::observe(Choice& choice, const ChoiceText::Piece& piece) const {
  if (api_.metrics == nullptr) return;
  const absl::Time now = steady_now();
  if (!piece.tokens.empty()) {
    const bool first = choice.last_token == absl::InfinitePast();
    observe_token(*api_.metrics, first, now - (first ? start_ : choice.last_token));
    choice.last_token = now;
  }
  if (piece.finish == FinishReason::kNone) return;
  observe_finish(*api_.metrics, {.latency = now - start_,
                                 .prompt_tokens = prompt_tokens_,
                                 .generation_tokens = choice.text.num_tokens(),
                                 .max_tokens = max_tokens_});
}

void GenerateStream::add(int choice, ChoiceText::Piece piece) {
  completion_tokens_ += static_cast<std::uint32_t>(piece.tokens.size());
  if (best_of_.has_value()) best_of_->add(choice, piece);
  if (hide_logprobs_) piece.logprobs.clear();
  waiting_bytes_ += bytes_of(piece);
  const FinishReason finish = piece.finish;
  const std::string error = piece.error;
  auto& slot = waiting_[static_cast<std::size_t>(choice)];
  if (slot.empty() || slot.back().token_ids_size() + std::ssize(piece.tokens) > kMostTokens) {
    slot.emplace_back().set_index(static_cast<std::uint32_t>(choice));
  }
  append(std::move(piece), slot.back());
  if (finish != FinishReason::kNone) end_choice(finish, error);
}

void GenerateStream::end_choice(FinishReason finish, const std::string& error) {
  --open_choices_;
  if (finish == FinishReason::kDeadline) {
    late_ = true;
    // Whether it leaves a part of an answer or none is known when every choice has ended.
    held_ = held_ || completion_tokens_ == 0;
  }
  if (finish == FinishReason::kError) {
    end_ = grpc::Status(grpc::StatusCode::INTERNAL, error.substr(0, 500));
    stop_request();
  } else if (finish == FinishReason::kCancelled && !cancelled_) {
    end_ = grpc::Status(grpc::StatusCode::UNAVAILABLE, "The server is stopping.");
  } else if (open_choices_ == 0) {
    end_all();
  }
}

void GenerateStream::end_all() {
  if (late_ && completion_tokens_ == 0) {
    return fail_locked({grpc::StatusCode::DEADLINE_EXCEEDED,
                        "The request's deadline passed before it had a single token."});
  }
  held_ = false;
  if (best_of_.has_value()) keep_the_best();
  end_ = grpc::Status::OK;
}

// Of the choices the best, best first, numbered anew.
void GenerateStream::keep_the_best() {
  std::vector<std::deque<v1::Delta>> best;
  for (const int choice : best_of_->best(num_returned_)) {
    auto& deltas = best.emplace_back(std::move(waiting_[static_cast<std::size_t>(choice)]));
    for (v1::Delta& delta : deltas) delta.set_index(static_cast<std::uint32_t>(best.size() - 1));
  }
  waiting_ = std::move(best);
  next_choice_ = 0;
}

void GenerateStream::cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  stop_request();
}

void GenerateStream::fail(grpc::Status status) {
  absl::MutexLock lock(&mutex_);
  fail_locked(std::move(status));
  pump();
}

void GenerateStream::refuse(grpc::Status status, absl::Duration retry_after) {
  absl::MutexLock lock(&mutex_);
  // Not finished yet, so the context lives. The name is the one that gRPC clients obey.
  if (!finished_ && !end_.has_value()) {
    setup_.context->AddTrailingMetadata("grpc-retry-pushback-ms",
                                        absl::StrCat(absl::ToInt64Milliseconds(retry_after)));
  }
  fail_locked(std::move(status));
  pump();
}

void GenerateStream::fail_locked(grpc::Status status) {
  stop_request();
  for (auto& deltas : waiting_) deltas.clear();
  waiting_bytes_ = 0;
  usage_written_ = true;  // there is no usage of what was not delivered
  end_ = std::move(status);
}

void GenerateStream::stop_request() {
  if (std::exchange(stopped_, true)) return;
  if (kept_ != nullptr && !cancelled_) kept_->leave(listener_);  // or its end would not be heard
  if (id_ != 0 && (kept_ == nullptr || cancelled_)) api_.engine->cancel(id_);
}

void GenerateStream::pump() {
  if (writing_ || finished_) return;
  if (held_) {
    if (!end_.has_value()) return;
    for (auto& deltas : waiting_) deltas.clear();  // it ended before anything could be chosen
  }
  for (std::size_t i = 0; i < waiting_.size(); ++i) {
    auto& deltas = waiting_[next_choice_];
    next_choice_ = (next_choice_ + 1) % waiting_.size();
    if (deltas.empty()) continue;
    reply_.set_request_id(setup_.request_id);
    *reply_.mutable_delta() = std::move(deltas.front());
    deltas.pop_front();
    waiting_bytes_ = 0;
    for (const auto& left : waiting_) {
      for (const v1::Delta& delta : left) waiting_bytes_ += delta.ByteSizeLong();
    }
    return write();
  }
  if (!end_.has_value()) return;
  if (end_->ok() && !usage_written_) return write_usage();
  finished_ = true;
  Finish(*end_);
}

void GenerateStream::write_usage() {
  usage_written_ = true;
  reply_.set_request_id(setup_.request_id);
  reply_.mutable_usage()->set_prompt_tokens(static_cast<std::uint32_t>(prompt_tokens_));
  reply_.mutable_usage()->set_completion_tokens(completion_tokens_);
  reply_.mutable_usage()->set_cached_tokens(cached_tokens_);
  write();
}

void GenerateStream::write() {
  writing_ = true;
  write_began_ = steady_now();
  StartWrite(&reply_);
}

void GenerateStream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  if (!ok) fail_locked({grpc::StatusCode::CANCELLED, "The client is gone."});
  pump();
}

void GenerateStream::OnCancel() {
  fail({grpc::StatusCode::CANCELLED, "The call was cancelled or its deadline has passed."});
}

void GenerateStream::OnDone() {
  {
    absl::MutexLock lock(&mutex_);
    stop_request();
    if (kept_ != nullptr) kept_->leave(listener_);
  }
  setup_.on_done();
  self_.reset();
}

}  // namespace quire
