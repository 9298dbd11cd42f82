// The table of endpoints, and what holds for all of them: one normalised path, the API key, errors
// in OpenAI's shape, HEAD and OPTIONS.
#pragma once

#include "coordinator/api/http.h"
#include "coordinator/api/service.h"

namespace quire {

// `api` is copied; what it points to outlives the handler.
HttpHandler make_routes(const Api& api);

}  // namespace quire
