// Sends a load to a server and collects what came back.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve/http_client.h"

namespace quire::bench {

// More threads than this are refused: give a concurrency instead.
inline constexpr int kMostConnections = 4096;

struct Run {
  std::vector<Outcome> outcomes;  // in the order of `calls`
  double duration_s = 0;          // from the start to the last answer's end
};

// Call i is sent `due_s[i]` seconds after the start (in their order), or later where
// `max_concurrency` (0: no limit) calls are under way; each on a connection of its own.
Run send_all(const Endpoint& endpoint, const std::vector<Call>& calls,
             const std::vector<double>& due_s, int max_concurrency);

// The served name of the first model, asked for until it comes or `within_s` is over (0: once).
absl::StatusOr<std::string> wait_for_model(const Endpoint& endpoint, double within_s);

}  // namespace quire::bench
