// One choice on its way from token ids to what a client sees: detokenizer, stop matcher, names for
// logprobs. The stop matcher's cut alone decides text and usage: tokens after it are not counted.
#pragma once

#include <string>
#include <vector>

#include "common/utf8.h"
#include "coordinator/api/service.h"
#include "coordinator/engine/request.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/stop_matcher.h"

namespace quire {

struct NamedLogprob {
  TokenId token = 0;
  float logprob = 0.0f;
  std::string bytes;  // what the token stands for (a special token: its name); maybe not UTF-8
};
struct TokenLogprobText {
  NamedLogprob chosen;
  std::vector<NamedLogprob> top;  // best first
};

class ChoiceText {
 public:
  ChoiceText(const Text& text, const TextOptions& options);

  struct Piece {
    std::string text;                        // newly certain; always whole UTF-8 characters
    std::vector<TokenId> tokens;             // newly counted
    std::vector<TokenLogprobText> logprobs;  // one per token of `tokens`, if asked for
    FinishReason finish = FinishReason::kNone;
    std::string stop_string;  // the stop string that ended the choice, or empty
    TokenId stop_token = -1;  // the eos or stop token that ended it, or -1
    std::string error;        // with kError
    std::string error_code;   // the same, if it has one
    // A stop string matched before the engine knew: call Engine::stop_choice(request, choice).
    bool stop_engine = false;
    bool empty() const { return text.empty() && tokens.empty() && finish == FinishReason::kNone; }
  };
  // Nothing more comes out once the choice has finished.
  Piece push(OutputDelta delta);

  int num_tokens() const { return num_tokens_; }  // counted so far: usage
  bool finished() const { return finished_; }

 private:
  void take_token(TokenId token, bool hide_text, Piece& piece);
  void take_text(const std::string& text, Piece& piece);
  void finish(OutputDelta& delta, Piece& piece);
  NamedLogprob named(const TokenLogprob& entry) const;

  const Tokenizer& tokenizer_;
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  bool include_stop_;
  int min_tokens_;
  int num_tokens_ = 0;
  bool finished_ = false;
};

// `bytes` with everything that is not UTF-8 replaced by U+FFFD.
inline std::string to_valid_utf8(absl::string_view bytes) {
  return utf8::to_valid(bytes);
}

}  // namespace quire
