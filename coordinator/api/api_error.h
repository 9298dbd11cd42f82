// Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "coordinator/api/http.h"

namespace quire {

struct ApiError {
  int status = 400;
  std::string message{};
  std::string param{};    // the field that is wrong; empty: null
  std::string code{};     // for programs ("model_not_found"); empty: null
  int retry_after_s = 1;  // told with status 429 and 503
};

std::string error_json(const ApiError& error);  // {"error": {...}}
HttpResponse error_response(const ApiError& error);

// The error an absl::Status of the shared checks (service.h) stands for: its field becomes `param`.
ApiError to_api_error(const absl::Status& status);

}  // namespace quire
