// From statuses to OpenAI's error shape.
#include "coordinator/api/api_error.h"

#include "absl/strings/str_cat.h"
#include "coordinator/api/service.h"
#include "nlohmann/json.hpp"

namespace quire {

namespace {

struct Mapping {
  absl::StatusCode status;
  int http;
  const char* code;
};
constexpr Mapping kMappings[] = {
    {absl::StatusCode::kInvalidArgument, 400, "invalid_value"},
    {absl::StatusCode::kOutOfRange, 400, "context_length_exceeded"},
    {absl::StatusCode::kNotFound, 404, "model_not_found"},
    {absl::StatusCode::kUnimplemented, 415, "unsupported_media_type"},
    {absl::StatusCode::kUnauthenticated, 401, "invalid_api_key"},
    {absl::StatusCode::kResourceExhausted, 503, "queue_full"},
    {absl::StatusCode::kFailedPrecondition, 503, "unavailable"},
    {absl::StatusCode::kUnavailable, 503, "unavailable"},
    {absl::StatusCode::kAborted, 503, "journal_unavailable"},
    {absl::StatusCode::kAlreadyExists, 409, "idempotency_conflict"},
    {absl::StatusCode::kDeadlineExceeded, 504, "deadline_exceeded"},
};

const char* type_of(int status) {
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

nlohmann::ordered_json or_null(const std::string& text) {
  if (text.empty()) return nullptr;
  return text;
}

}  // namespace

std::string error_json(const ApiError& error) {
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", error.message},
                                         {"type", type_of(error.status)},
                                         {"param", or_null(error.param)},
                                         {"code", or_null(error.code)}}}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error_json(error)};
  if (error.status == 429 || error.status == 503) {
    response.headers.emplace_back("Retry-After", absl::StrCat(error.retry_after_s));
  }
  return response;
}

ApiError to_api_error(const absl::Status& status) {
  ApiError error{.status = 500,
                 .message = std::string(status.message()),
                 .param = field_of(status),
                 .code = "internal_error"};
  for (const Mapping& mapping : kMappings) {
    if (mapping.status != status.code()) continue;
    error.status = mapping.http;
    error.code = mapping.code;
  }
  if (is_rate_limited(status)) {
    error.status = 429;
    error.code = "rate_limited";
  }
  return error;
}

}  // namespace quire
