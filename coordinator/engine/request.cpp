#include "coordinator/engine/request.h"

#include <algorithm>

namespace quire {

void OutputDelta::append(const OutputDelta& next) {
  num_cached_tokens = std::max(num_cached_tokens, next.num_cached_tokens);
  tokens.insert(tokens.end(), next.tokens.begin(), next.tokens.end());
  logprobs.insert(logprobs.end(), next.logprobs.begin(), next.logprobs.end());
  finish = next.finish;
  stop_token = next.stop_token;
  error = next.error;
  error_code = next.error_code;
}

std::vector<OutputDelta> nothing_yet(RequestId request, int n) {
  std::vector<OutputDelta> past(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    past[static_cast<std::size_t>(i)].request = request;
    past[static_cast<std::size_t>(i)].choice = i;
  }
  return past;
}

bool SavedRequest::ended() const {
  return std::all_of(past.begin(), past.end(), [](const OutputDelta& choice) {
    return choice.finish != FinishReason::kNone;
  });
}

}  // namespace quire
