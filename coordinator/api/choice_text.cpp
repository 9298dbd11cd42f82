// Token ids to text for one choice; the rules are in choice_text.h.
#include "coordinator/api/choice_text.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {

ChoiceText::ChoiceText(const Text& text, const TextOptions& options)
    : tokenizer_(*text.tokenizer),
      detokenizer_(tokenizer_, options.skip_special),
      matcher_(options.stop, options.include_stop),
      include_stop_(options.include_stop),
      min_tokens_(options.min_tokens) {}

ChoiceText::Piece ChoiceText::push(OutputDelta delta) {
  Piece piece;
  if (finished_) return piece;
  const bool with_logprobs = delta.logprobs.size() == delta.tokens.size();
  for (std::size_t i = 0; i < delta.tokens.size() && !finished_; ++i) {
    const TokenId token = delta.tokens[i];
    const bool last = i + 1 == delta.tokens.size();
    const bool ends = last && delta.finish == FinishReason::kStop && token == delta.stop_token;
    take_token(token, ends && !include_stop_, piece);
    if (!with_logprobs || delta.logprobs[i].empty()) continue;
    TokenLogprobText& entry = piece.logprobs.emplace_back();
    entry.chosen = named(delta.logprobs[i][0]);
    for (std::size_t k = 1; k < delta.logprobs[i].size(); ++k) {
      entry.top.push_back(named(delta.logprobs[i][k]));
    }
  }
  if (finished_) {  // a stop string: the engine may still be sampling this choice
    piece.stop_engine = delta.finish == FinishReason::kNone;
    return piece;
  }
  if (delta.finish == FinishReason::kNone) return piece;
  finish(delta, piece);
  return piece;
}

// Counts one token and adds what became certain of its text.
void ChoiceText::take_token(TokenId token, bool hide_text, Piece& piece) {
  piece.tokens.push_back(token);
  ++num_tokens_;
  if (hide_text) return;
  take_text(detokenizer_.push(token), piece);
}

void ChoiceText::take_text(const std::string& text, Piece& piece) {
  if (text.empty()) return;
  if (num_tokens_ <= min_tokens_) {
    piece.text += text;
    return;
  }
  StopMatcher::Output out = matcher_.push(text);
  piece.text += out.text;
  if (!out.stopped) return;
  finished_ = true;
  piece.finish = FinishReason::kStop;
  piece.stop_string = std::move(out.stop);
}

// The engine's own end of the choice: what the detokenizer holds back may still complete a stop
// string, and what the matcher holds back is then plain text.
void ChoiceText::finish(OutputDelta& delta, Piece& piece) {
  take_text(detokenizer_.finish(), piece);
  if (finished_) return;
  piece.text += matcher_.finish();
  finished_ = true;
  piece.finish = delta.finish;
  piece.stop_token = delta.stop_token;
  piece.error = std::move(delta.error);
  piece.error_code = std::move(delta.error_code);
}

NamedLogprob ChoiceText::named(const TokenLogprob& entry) const {
  if (!tokenizer_.has_text()) {
    return {entry.token, entry.logprob, absl::StrCat("token_id:", entry.token)};
  }
  const absl::string_view bytes = tokenizer_.is_special(entry.token)
                                      ? tokenizer_.name_of(entry.token)
                                      : tokenizer_.bytes_of(entry.token);
  return {entry.token, entry.logprob, std::string(bytes)};
}

}  // namespace quire
