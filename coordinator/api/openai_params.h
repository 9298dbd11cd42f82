// What /v1/completions and /v1/chat/completions have in common on the way in: the body as a JSON
// object, sampling fields, streaming fields, and the fields that this version does not build.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/api/fields.h"
#include "coordinator/api/http.h"
#include "coordinator/api/service.h"

namespace quire {

struct StreamOptions {
  bool stream = false;
  bool include_usage = false;           // a last chunk with usage and no choices
  bool continuous_usage_stats = false;  // usage in every chunk
};

// Unimplemented if the body is not declared as application/json (415: what keeps a web page from
// posting here without the browser asking), InvalidArgument if it is not a JSON object.
absl::StatusOr<nlohmann::json> json_body(const HttpRequest& request);

// Refuses every field that is not built unless it has its neutral value. Never silently ignored.
void refuse_unbuilt(Fields& fields);

// Every field of a request but max_tokens and logprobs, whose names differ between the endpoints,
// and those of streaming.
void read_sampling(Fields& fields, GenerationInput& input);
StreamOptions read_stream_options(Fields& fields);
void check_model_field(Fields& fields, const ServedModel& model);

}  // namespace quire
