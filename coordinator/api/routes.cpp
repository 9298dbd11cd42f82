// Path and method to handler. To add an endpoint: a function in endpoints.h and a row here.
#include "coordinator/api/routes.h"

#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/api/api_error.h"
#include "coordinator/api/endpoints.h"

namespace quire {

namespace {

struct Route {
  const char* method;
  const char* path;  // one that ends in a slash holds for whatever follows it
  void (*handle)(const Api&, Exchange&);
};
constexpr Route kRoutes[] = {
    {"POST", "/v1/completions", handle_completions},
    {"POST", "/v1/chat/completions", handle_chat},
    {"GET", "/v1/streams/", handle_stream},
    {"GET", "/v1/models", handle_models},
    {"GET", "/v1/models/", handle_model},
    {"GET", "/health", handle_health},
    {"GET", "/ready", handle_ready},
    {"GET", "/version", handle_version},
    {"GET", "/metrics", handle_metrics},
};

bool holds_for(const Route& route, absl::string_view path) {
  const absl::string_view pattern = route.path;
  if (!absl::EndsWith(pattern, "/")) return path == pattern;
  return path.size() > pattern.size() && absl::StartsWith(path, pattern);
}

// Everything under /v1, known or not, needs the key when there is one.
bool is_guarded(absl::string_view path) {
  return path == "/v1" || absl::StartsWith(path, "/v1/");
}

// Whether the key, if there must be one, is right; the exchange then knows its tenant.
bool admit(const ApiKeys& keys, Exchange& exchange) {
  const HttpRequest& request = exchange.request();
  if (!keys.required() || !is_guarded(request.path)) return true;
  if (request.count("authorization") != 1) return false;
  const std::optional<int> tenant = keys.tenant_of(request.header("authorization"));
  if (!tenant.has_value()) return false;
  exchange.set_tenant(*tenant);
  return true;
}

void refuse_key(Exchange& exchange) {
  HttpResponse response = error_response(
      {.status = 401,
       .message = "The API key is missing or wrong; send \"Authorization: Bearer <key>\".",
       .code = "invalid_api_key"});
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  exchange.respond(std::move(response));
}

// The methods `path` answers to; empty when there is no such path.
std::vector<std::string> methods_of(absl::string_view path) {
  std::vector<std::string> methods;
  for (const Route& route : kRoutes) {
    if (!holds_for(route, path)) continue;
    methods.emplace_back(route.method);
    if (methods.back() == "GET") methods.emplace_back("HEAD");
  }
  if (!methods.empty()) methods.emplace_back("OPTIONS");
  return methods;
}

void answer_without_route(Exchange& exchange) {
  const HttpRequest& request = exchange.request();
  const std::vector<std::string> methods = methods_of(request.path);
  HttpResponse response;
  if (methods.empty()) {
    response = error_response(
        {.status = 404,
         .message = absl::StrCat("There is no ", request.path.substr(0, 200), " here."),
         .code = "not_found"});
  } else if (request.method == "OPTIONS") {
    response.status = 204;
  } else {
    response = error_response({.status = 405,
                               .message = absl::StrCat(request.path, " answers to ",
                                                       absl::StrJoin(methods, ", "), " only."),
                               .code = "method_not_allowed"});
  }
  if (!methods.empty()) response.headers.emplace_back("Allow", absl::StrJoin(methods, ", "));
  exchange.respond(std::move(response));
}

}  // namespace

HttpHandler make_routes(const Api& api) {
  auto keys = std::make_shared<const ApiKeys>(api.config->api_key, api.tenants);
  return [api, keys](Exchange& exchange) {
    const HttpRequest& request = exchange.request();
    const std::string& method = request.method;
    if (method != "OPTIONS" && !admit(*keys, exchange)) return refuse_key(exchange);
    for (const Route& route : kRoutes) {
      const bool matches = method == route.method || (method == "HEAD" && route.method[0] == 'G');
      if (matches && holds_for(route, request.path)) return route.handle(api, exchange);
    }
    answer_without_route(exchange);
  };
}

}  // namespace quire
