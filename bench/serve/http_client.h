// A blocking client of one streaming completion, with the times a benchmark needs.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve/load.h"

namespace quire::bench {

struct Endpoint {
  std::string host = "127.0.0.1";
  std::string port = "8000";
  std::string model;  // the served name
};

struct Timing {
  double sent_at_s = 0;              // of the steady clock
  double ttft_s = 0;                 // request sent -> first chunk with a choice
  double end_s = 0;                  // request sent -> last chunk with a choice
  std::vector<double> chunk_gaps_s;  // between successive chunks with choices
  int output_tokens = 0;             // usage.completion_tokens
};

// POST /v1/completions with token ids, greedy, ignore_eos, streamed.
absl::StatusOr<Timing> complete(const Endpoint& endpoint, const Call& call);
// The id of the first model that /v1/models lists.
absl::StatusOr<std::string> first_model(const Endpoint& endpoint);

}  // namespace quire::bench
