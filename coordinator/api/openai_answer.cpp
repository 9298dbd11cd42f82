// Whole answers and event streams. Chunks are written by hand: one is made for every token of every
// stream, and their outer part is the same all along.
#include "coordinator/api/openai_answer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "coordinator/api/answer_book.h"
#include "coordinator/api/api_error.h"
#include "coordinator/api/best_of.h"
#include "coordinator/api/json_input.h"

namespace quire {

namespace {

constexpr float kLogprobFloor = -9999.0f;

// What the client is told when a choice did not end by itself.
ApiError failure_of(const ChoiceText::Piece& piece) {
  switch (piece.finish) {
    case FinishReason::kCancelled:
      return {
          .status = 503,
          .message = "The request was cancelled before it was finished: the server is stopping.",
          .code = "cancelled"};
    default:
      return {.status = 500,
              .message = piece.error.empty() ? "The request failed." : piece.error,
              .code = piece.error_code.empty() ? "internal_error" : piece.error_code};
  }
}

struct Usage {
  int prompt_tokens, cached_tokens, completion_tokens;
};
void append_usage(std::string& out, const Usage& usage) {
  absl::StrAppend(&out, "{\"prompt_tokens\":", usage.prompt_tokens,
                  ",\"total_tokens\":", usage.prompt_tokens + usage.completion_tokens,
                  ",\"completion_tokens\":", usage.completion_tokens,
                  ",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached_tokens, "}}");
}

bool is_failure(FinishReason reason) {
  return reason == FinishReason::kCancelled || reason == FinishReason::kError;
}

// `"name":[1,2],`
void append_ids(std::string& out, const char* name, const std::vector<TokenId>& ids) {
  absl::StrAppend(&out, "\"", name, "\":[", absl::StrJoin(ids, ","), "],");
}

class Answer {
 public:
  Answer(const Api& api, const Dialect& dialect, const AnswerPlan& plan, AnswerCall call,
         Exchange& exchange)
      : api_(api),
        dialect_(dialect),
        call_(std::move(call)),
        stream_(plan.stream),
        with_ids_(plan.return_token_ids || !api.model->text.tokenizer->has_text()),
        ignore_eos_(plan.prompts.front().request.params.ignore_eos),
        whole_(plan.prompts.front().request.beams.width > 0),
        hide_logprobs_(plan.prompts.front().hide_logprobs),
        num_made_(plan.prompts.front().request.n),
        num_returned_(plan.prompts.front().num_returned),
        exchange_(exchange) {
    if (num_returned_ < num_made_) {
      best_of_.resize(plan.prompts.size(), BestOf(num_made_));
    }
    const char* object = stream_.stream ? dialect.chunk_object : dialect.object;
    absl::StrAppend(&head_, "{\"id\":");
    append_json_string(head_, json_id(*call_.record));
    absl::StrAppend(&head_, ",\"object\":\"", object, "\",\"created\":", call_.record->created,
                    ",\"model\":");
    append_json_string(head_, api.model->name);
    absl::StrAppend(&head_, ",\"choices\":[");
  }

  absl::Status start(std::shared_ptr<Waker> waker, std::vector<Prepared> prompts) {
    for (Prepared& prompt : prompts) {
      prompt.request.tenant = exchange_.tenant();
      prompt.request.answer = call_.record;
    }
    if (with_ids_) {
      for (const Prepared& prompt : prompts) prompt_ids_.push_back(prompt.request.prompt);
    }
    generation_ = std::make_unique<Generation>(api_, std::move(waker));
    absl::Status status;
    if (call_.attach) {
      generation_->attach(std::move(prompts), call_.kept, call_.had.choices);
    } else {
      status = generation_->submit(std::move(prompts), call_.kept);
    }
    if (!status.ok()) return status;
    choices_.resize(static_cast<std::size_t>(generation_->num_choices()));
    for (std::size_t i = 0; i < choices_.size(); ++i) choices_[i].index = static_cast<int>(i);
    const bool can_resume = call_.kept != nullptr || api_.is_journaled;
    if (stream_.stream && can_resume && choices_.size() <= kMaxEventChoices) {
      event_id_.name = call_.record->name;
      // What the client has counts from the first event on, also before it has been made again.
      event_id_.choices = call_.had.choices;
      event_id_.choices.resize(choices_.size());
    }
    return status;
  }

  void on_wake() {
    if (failed_) return;
    for (Generation::ChoicePiece& arrived : generation_->take()) {
      take(std::move(arrived));
      if (failed_) return;
    }
    if (generation_->finished()) finish();
  }

  void on_abort() { generation_->cancel(); }

 private:
  void take(Generation::ChoicePiece arrived) {
    if (is_failure(arrived.piece.finish)) return fail(failure_of(arrived.piece));
    // Whether a deadline leaves a part of an answer or none is known when every choice has ended.
    const bool nothing_yet = generation_->total_tokens() == 0;
    if (arrived.piece.finish == FinishReason::kDeadline && nothing_yet) {
      return late_.push_back(std::move(arrived));
    }
    show(std::move(arrived));
  }

  void show(Generation::ChoicePiece arrived) {
    ChoiceText::Piece& piece = arrived.piece;
    if (!best_of_.empty()) {
      best_of_[static_cast<std::size_t>(arrived.choice / num_made_)].add(arrived.choice % num_made_,
                                                                         piece);
    }
    if (hide_logprobs_) piece.logprobs.clear();
    AnswerChoice& choice = choices_[static_cast<std::size_t>(arrived.choice)];
    choice.finish_reason = finish_reason_name(piece.finish);
    if (!piece.stop_string.empty()) {
      choice.stop_reason = piece.stop_string;
    } else if (piece.stop_token >= 0 && !is_eos(piece.stop_token)) {
      choice.stop_reason = piece.stop_token;
    }
    if (!event_id_.choices.empty() && !arrived.had) {
      event_id_.choices[static_cast<std::size_t>(arrived.choice)] = {
          arrived.num_tokens, piece.finish != FinishReason::kNone};
    }
    if (stream_.stream) return send(choice, piece, arrived.num_tokens, arrived.had);
    choice.text += piece.text;
    if (with_ids_) {
      choice.tokens.insert(choice.tokens.end(), piece.tokens.begin(), piece.tokens.end());
    }
    std::move(piece.logprobs.begin(), piece.logprobs.end(), std::back_inserter(choice.logprobs));
  }

  // An end by the model's own wish has no stop_reason.
  bool is_eos(TokenId token) const {
    const auto& eos = api_.model->spec.eos;
    if (ignore_eos_) return false;
    return std::find(eos.begin(), eos.end(), token) != eos.end();
  }

  // What the client has already is made, too, for what comes after it counts on it; but not sent.
  void send(AnswerChoice& choice, const ChoiceText::Piece& piece, int num_tokens, bool had) {
    const bool ends = piece.finish != FinishReason::kNone;
    const bool has_ids = with_ids_ && !piece.tokens.empty();
    if (choice.begun && piece.text.empty() && piece.logprobs.empty() && !has_ids && !ends) return;
    const bool first_of_all = !begun_;
    begin_events();
    line_ = head_;
    absl::StrAppend(&line_, "{\"index\":", choice.index, ",");
    dialect_.append_delta(line_, choice, piece);
    append_ids_of(line_, choice, piece.tokens, !choice.begun);
    append_end(line_, choice);
    line_.append("}]");
    if (first_of_all) append_prompt_ids(line_);
    if (stream_.continuous_usage_stats) {
      line_.append(",\"usage\":");
      append_usage(line_, {generation_->num_prompt_tokens(choice.index),
                           generation_->num_cached_tokens(choice.index), num_tokens});
    }
    line_.push_back('}');
    if (!had) exchange_.send_event(line_, event_id());
    choice.begun = true;
  }

  absl::string_view event_id() {
    id_line_.clear();
    if (!event_id_.choices.empty()) append_event_id(id_line_, event_id_);
    return id_line_;
  }

  // What the choice's object has of ids.
  void append_ids_of(std::string& out, const AnswerChoice& choice,
                     const std::vector<TokenId>& tokens, bool with_prompt) {
    if (!with_ids_) return;
    append_ids(out, "token_ids", tokens);
    if (!with_prompt || !dialect_.prompt_ids_in_choice) return;
    const int prompt = choice.index / num_returned_;
    append_ids(out, "prompt_token_ids", prompt_ids_[static_cast<std::size_t>(prompt)]);
  }
  // What the answer's object has of them, after its choices.
  void append_prompt_ids(std::string& out) {
    if (!with_ids_ || dialect_.prompt_ids_in_choice) return;
    out.push_back(',');
    append_ids(out, "prompt_token_ids", prompt_ids_.front());
    out.pop_back();
  }

  void append_end(std::string& out, const AnswerChoice& choice) {
    out.append("\"finish_reason\":");
    if (choice.finish_reason.empty()) {
      out.append("null,\"stop_reason\":null");
    } else {
      absl::StrAppend(&out, "\"", choice.finish_reason,
                      "\",\"stop_reason\":", choice.stop_reason.dump());
    }
  }

  void begin_events() {
    if (begun_) return;
    begun_ = true;
    exchange_.start_events(/*bounded=*/!whole_ && !call_.attach);
  }

  // Of each prompt's choices the best, best first, numbered anew.
  void keep_the_best() {
    std::vector<AnswerChoice> best;
    for (std::size_t prompt = 0; prompt < best_of_.size(); ++prompt) {
      const std::size_t first = prompt * static_cast<std::size_t>(num_made_);
      for (const int choice : best_of_[prompt].best(num_returned_)) {
        const int index = static_cast<int>(best.size());
        best.push_back(std::move(choices_[first + static_cast<std::size_t>(choice)]));
        best.back().index = index;
      }
    }
    choices_ = std::move(best);
  }

  Usage usage() const {
    return {generation_->total_prompt_tokens(), generation_->total_cached_tokens(),
            generation_->total_tokens()};
  }

  void finish() {
    if (!late_.empty() && generation_->total_tokens() == 0) {
      return fail({.status = 504,
                   .message = "The request's deadline passed before it had a single token.",
                   .code = "deadline_exceeded"});
    }
    for (Generation::ChoicePiece& piece : late_) show(std::move(piece));
    if (!best_of_.empty()) keep_the_best();
    if (stream_.stream) {
      begin_events();  // also where the client has all of it
      if (stream_.include_usage && !call_.had.usage) {
        event_id_.usage = true;
        line_ = absl::StrCat(head_, "],\"usage\":");
        append_usage(line_, usage());
        line_.push_back('}');
        exchange_.send_event(line_, event_id());
      }
      exchange_.send_event("[DONE]");
      return exchange_.end_events();
    }
    std::string body = std::move(head_);
    for (AnswerChoice& choice : choices_) {
      absl::StrAppend(&body, choice.index > 0 ? "," : "", "{\"index\":", choice.index, ",");
      dialect_.append_whole(body, choice);
      append_ids_of(body, choice, choice.tokens, true);
      append_end(body, choice);
      body.push_back('}');
    }
    body.push_back(']');
    append_prompt_ids(body);
    body.append(",\"service_tier\":null,\"system_fingerprint\":null,\"usage\":");
    append_usage(body, usage());
    body.push_back('}');
    exchange_.respond({.body = std::move(body)});
  }

  // Ends everything: an error answer, or an error event if events have begun.
  void fail(const ApiError& error) {
    failed_ = true;
    generation_->cancel();
    if (!begun_) return exchange_.respond(error_response(error));
    exchange_.send_event(error_json(error));
    exchange_.send_event("[DONE]");
    exchange_.end_events();
  }

  const Api api_;
  const Dialect& dialect_;
  const AnswerCall call_;
  const StreamOptions stream_;
  const bool with_ids_;
  const bool ignore_eos_;
  const bool whole_;  // choices come whole, at the end
  const bool hide_logprobs_;
  const int num_made_, num_returned_;  // choices of each prompt
  Exchange& exchange_;
  std::string head_;  // {"id":...,"choices":[
  std::string line_;  // the event being made; keeps its memory
  EventId event_id_;  // of the last event; no choices: events have none
  std::string id_line_;
  std::unique_ptr<Generation> generation_;
  std::vector<AnswerChoice> choices_;
  std::vector<std::vector<TokenId>> prompt_ids_;  // where the answer carries ids
  std::vector<BestOf> best_of_;                   // [prompt]; empty: all choices are returned
  std::vector<Generation::ChoicePiece> late_;     // ends by the deadline, before any token
  bool begun_ = false;                            // events
  bool failed_ = false;
};

}  // namespace

void run_answer(const Api& api, const Dialect& dialect, AnswerPlan plan, AnswerCall call,
                Exchange& exchange) {
  const std::shared_ptr<KeptAnswer> kept = call.kept;
  const bool is_new = kept != nullptr && !call.attach;
  auto answer = std::make_shared<Answer>(api, dialect, plan, std::move(call), exchange);
  auto waker =
      exchange.keep_running([answer] { answer->on_wake(); }, [answer] { answer->on_abort(); });
  const absl::Status status = answer->start(std::move(waker), std::move(plan.prompts));
  if (status.ok()) return;
  if (is_new) {
    api.book->remove(*kept);
    for (const RequestId id : kept->requests()) api.engine->cancel(id);
    kept->fail(std::string(status.message()));  // to whoever came with the same key meanwhile
  }
  ApiError error = to_api_error(status);
  if (absl::IsResourceExhausted(status)) {
    error.retry_after_s = static_cast<int>(absl::ToInt64Seconds(api.engine->retry_after()));
  }
  exchange.respond(error_response(error));
}

void respond_error(Exchange& exchange, const absl::Status& status) {
  exchange.respond(error_response(to_api_error(status)));
}

double json_logprob(float logprob) {
  return std::max(logprob, kLogprobFloor);
}

std::string token_text(const NamedLogprob& token) {
  return to_valid_utf8(token.bytes);
}

}  // namespace quire
