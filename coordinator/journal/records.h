// What is journaled, as bytes and back (proto/journal.proto). Decoding believes nothing: every
// count is checked here, whether a value makes sense to the model by the engine.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/engine/request.h"

namespace quire::records {

std::string encode(const AnswerRecord& answer);
absl::StatusOr<AnswerRecord> decode_answer(absl::string_view bytes);

// A request without its tenant's number, which is of one life: by name.
struct StoredRequest {
  Request request;  // `answer` is null, `id` 0: both stand beside it
  std::string answer;
  std::string tenant;
  std::uint64_t model_hash = 0;
};
std::string encode(const Request& request, std::uint64_t model_hash);
absl::StatusOr<StoredRequest> decode_request(absl::string_view bytes);

// DataLoss if a list has not the length that its neighbour promises.
std::string encode(const std::vector<OutputDelta>& deltas);
absl::StatusOr<std::vector<OutputDelta>> decode_deltas(absl::string_view bytes);

}  // namespace quire::records
