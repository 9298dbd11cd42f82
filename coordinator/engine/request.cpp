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

std::vector<OutputDelta> OutputDelta::parts_of(OutputDelta whole, int most) {
  std::vector<OutputDelta> parts;
  const auto size = static_cast<std::size_t>(most);
  for (std::size_t from = 0; from + size < whole.tokens.size(); from += size) {
    OutputDelta& part = parts.emplace_back();
    part.request = whole.request;
    part.choice = whole.choice;
    part.num_cached_tokens = whole.num_cached_tokens;
    const auto take = [&](auto& all, auto& some) {
      if (from >= all.size()) return;
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(from);
      some.assign(begin, begin + static_cast<std::ptrdiff_t>(std::min(size, all.size() - from)));
    };
    take(whole.tokens, part.tokens);
    take(whole.logprobs, part.logprobs);
  }
  const std::size_t taken = parts.size() * size;
  const auto drop = [&](auto& all) {
    all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(taken, all.size())));
  };
  drop(whole.tokens);
  drop(whole.logprobs);
  parts.push_back(std::move(whole));
  return parts;
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
