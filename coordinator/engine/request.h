// A client's wish and where to deliver. The api makes it, the engine owns it until it is finished.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "common/sampling_params.h"
#include "common/step.h"

namespace quire {

enum class FinishReason { kNone, kStop, kLength, kCancelled, kDeadline, kError };

// What one choice of a request gained. Delivered in order, from the engine's thread; must not
// block.
struct OutputDelta {
  RequestId request = 0;
  int choice = 0;
  std::vector<TokenId> tokens;
  std::vector<std::vector<TokenLogprob>> logprobs;  // per token, if asked for
  FinishReason finish = FinishReason::kNone;        // set on the last delta of the choice
  TokenId stop_token = -1;  // the eos or stop token id that ended it: also the last of `tokens`
  std::string error;        // with kError
};
using DeliverFn = std::function<void(OutputDelta)>;

struct Request {
  RequestId id = 0;             // given by Engine::submit
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams params;
  int n = 1;  // choices; choice i draws with sample_index i
  absl::Time deadline = absl::InfiniteFuture();
  DeliverFn deliver;
};

}  // namespace quire
