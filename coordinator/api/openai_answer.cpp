// Whole answers and event streams. Chunks are written by hand: one is made for every token of every
// stream, and their outer part is the same all along.
#include "coordinator/api/openai_answer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "coordinator/api/api_error.h"
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
    case FinishReason::kDeadline:
      return {.status = 503,
              .message = "The request's deadline has passed.",
              .code = "deadline_exceeded"};
    default:
      return {.status = 500,
              .message = piece.error.empty() ? "The request failed." : piece.error,
              .code = "internal_error"};
  }
}

void append_usage(std::string& out, int prompt_tokens, int completion_tokens) {
  absl::StrAppend(&out, "{\"prompt_tokens\":", prompt_tokens,
                  ",\"total_tokens\":", prompt_tokens + completion_tokens,
                  ",\"completion_tokens\":", completion_tokens, "}");
}

// `"name":[1,2],`
void append_ids(std::string& out, const char* name, const std::vector<TokenId>& ids) {
  absl::StrAppend(&out, "\"", name, "\":[", absl::StrJoin(ids, ","), "],");
}

class Answer {
 public:
  Answer(const Api& api, const Dialect& dialect, const AnswerPlan& plan, Exchange& exchange)
      : api_(api),
        dialect_(dialect),
        stream_(plan.stream),
        with_ids_(plan.return_token_ids || !api.model->text.tokenizer->has_text()),
        ignore_eos_(plan.prompts.front().request.params.ignore_eos),
        exchange_(exchange) {
    const char* object = stream_.stream ? dialect.chunk_object : dialect.object;
    absl::StrAppend(&head_, "{\"id\":");
    append_json_string(head_, absl::StrCat(dialect.id_prefix, exchange.request().id));
    absl::StrAppend(&head_, ",\"object\":\"", object,
                    "\",\"created\":", absl::ToUnixSeconds(absl::Now()), ",\"model\":");
    append_json_string(head_, api.model->name);
    absl::StrAppend(&head_, ",\"choices\":[");
  }

  absl::Status start(std::shared_ptr<Waker> waker, std::vector<Prepared> prompts) {
    if (with_ids_) {
      num_choices_of_prompt_ = static_cast<std::size_t>(prompts.front().request.n);
      for (const Prepared& prompt : prompts) prompt_ids_.push_back(prompt.request.prompt);
    }
    generation_ = std::make_unique<Generation>(api_, std::move(waker));
    absl::Status status = generation_->submit(std::move(prompts));
    if (!status.ok()) return status;
    choices_.resize(static_cast<std::size_t>(generation_->num_choices()));
    for (std::size_t i = 0; i < choices_.size(); ++i) choices_[i].index = static_cast<int>(i);
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
    ChoiceText::Piece& piece = arrived.piece;
    if (piece.finish != FinishReason::kNone && piece.finish != FinishReason::kStop &&
        piece.finish != FinishReason::kLength) {
      return fail(failure_of(piece));
    }
    AnswerChoice& choice = choices_[static_cast<std::size_t>(arrived.choice)];
    choice.finish_reason = finish_reason_name(piece.finish);
    if (!piece.stop_string.empty()) {
      choice.stop_reason = piece.stop_string;
    } else if (piece.stop_token >= 0 && !is_eos(piece.stop_token)) {
      choice.stop_reason = piece.stop_token;
    }
    if (stream_.stream) return send(choice, piece, arrived.num_tokens);
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

  void send(AnswerChoice& choice, const ChoiceText::Piece& piece, int num_tokens) {
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
      append_usage(line_, generation_->num_prompt_tokens(choice.index), num_tokens);
    }
    line_.push_back('}');
    exchange_.send_event(line_);
    choice.begun = true;
  }

  // What the choice's object has of ids.
  void append_ids_of(std::string& out, const AnswerChoice& choice,
                     const std::vector<TokenId>& tokens, bool with_prompt) {
    if (!with_ids_) return;
    append_ids(out, "token_ids", tokens);
    if (!with_prompt || !dialect_.prompt_ids_in_choice) return;
    const auto prompt = static_cast<std::size_t>(choice.index) / num_choices_of_prompt_;
    append_ids(out, "prompt_token_ids", prompt_ids_[prompt]);
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
    exchange_.start_events();
  }

  void finish() {
    if (stream_.stream) {
      if (stream_.include_usage) {
        line_ = absl::StrCat(head_, "],\"usage\":");
        append_usage(line_, generation_->total_prompt_tokens(), generation_->total_tokens());
        line_.push_back('}');
        exchange_.send_event(line_);
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
    append_usage(body, generation_->total_prompt_tokens(), generation_->total_tokens());
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
  const StreamOptions stream_;
  const bool with_ids_;
  const bool ignore_eos_;
  Exchange& exchange_;
  std::string head_;  // {"id":...,"choices":[
  std::string line_;  // the event being made; keeps its memory
  std::unique_ptr<Generation> generation_;
  std::vector<AnswerChoice> choices_;
  std::vector<std::vector<TokenId>> prompt_ids_;  // where the answer carries ids
  std::size_t num_choices_of_prompt_ = 1;
  bool begun_ = false;  // events
  bool failed_ = false;
};

}  // namespace

void run_answer(const Api& api, const Dialect& dialect, AnswerPlan plan, Exchange& exchange) {
  const absl::Status ready = check_ready(*api.engine);
  if (!ready.ok()) return respond_error(exchange, ready);
  auto answer = std::make_shared<Answer>(api, dialect, plan, exchange);
  auto waker =
      exchange.keep_running([answer] { answer->on_wake(); }, [answer] { answer->on_abort(); });
  const absl::Status status = answer->start(std::move(waker), std::move(plan.prompts));
  if (!status.ok()) respond_error(exchange, status);
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
