// The parts of prepare() (service.h) that concern how a request waits and how its choices are
// found.
#pragma once

#include "absl/status/status.h"
#include "coordinator/api/service.h"

namespace quire {

// `priority`, `timeout` or `deadline_ms`, `cache_salt`.
absl::Status set_queueing(const EngineConfig& config, const GenerationInput& input,
                          Request& request);

// `n`, `best_of`, and everything of beams. After request.params are complete and checked: a field
// that contradicts a beam search is refused, not bent.
absl::Status set_search(const EngineConfig& config, const GenerationInput& input, Prepared& out);

// InvalidArgument unless `value` is in [low, high].
absl::Status check_range(const char* field, std::int64_t value, std::int64_t low,
                         std::int64_t high);

}  // namespace quire
