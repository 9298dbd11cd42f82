// What a generation tells /metrics about itself. How requests ended is counted by the engine.
#pragma once

#include "absl/time/time.h"

namespace quire {

class Metrics;

// A choice gained tokens: `since` its request began (the first time) or since it last did.
void observe_token(Metrics& metrics, bool first, absl::Duration since);

struct FinishedChoice {
  absl::Duration latency;  // from the request's arrival
  int prompt_tokens = 0;
  int generation_tokens = 0;
  int max_tokens = 0;
};
void observe_finish(Metrics& metrics, const FinishedChoice& choice);

}  // namespace quire
