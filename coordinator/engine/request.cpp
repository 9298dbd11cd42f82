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

OutputDelta OutputDelta::part(std::size_t from, std::size_t count) const {
  OutputDelta some;
  some.request = request;
  some.choice = choice;
  some.num_cached_tokens = num_cached_tokens;
  const auto take = [&](const auto& all, auto& taken) {
    if (from >= all.size()) return;
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(from);
    taken.assign(begin, begin + static_cast<std::ptrdiff_t>(std::min(count, all.size() - from)));
  };
  take(tokens, some.tokens);
  take(logprobs, some.logprobs);
  return some;
}

void OutputDelta::drop_first(std::size_t count) {
  const auto drop = [&](auto& all) {
    all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(count, all.size())));
  };
  drop(tokens);
  drop(logprobs);
}

std::vector<OutputDelta> OutputDelta::parts_of(OutputDelta whole, int most) {
  std::vector<OutputDelta> parts;
  const auto size = static_cast<std::size_t>(most);
  for (std::size_t from = 0; from + size < whole.tokens.size(); from += size) {
    parts.push_back(whole.part(from, size));
  }
  whole.drop_first(parts.size() * size);
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
