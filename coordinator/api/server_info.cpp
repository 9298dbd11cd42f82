// GET /v1/models, /v1/models/ID, /health, /version.
#include "absl/strings/strip.h"
#include "coordinator/api/api_error.h"
#include "coordinator/api/endpoints.h"
#include "nlohmann/json.hpp"

namespace quire {

using nlohmann::ordered_json;

namespace {

ordered_json describe(const ServedModel& model) {
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "quire"},
          {"max_model_len", model.max_model_len}};
}

}  // namespace

void handle_models(const Api& api, Exchange& exchange) {
  const ordered_json body = {{"object", "list"},
                             {"data", ordered_json::array({describe(*api.model)})}};
  exchange.respond({.body = body.dump()});
}

void handle_model(const Api& api, Exchange& exchange) {
  absl::string_view id = exchange.request().path;
  absl::ConsumePrefix(&id, "/v1/models/");
  const absl::Status known = check_model(*api.model, id);
  if (!known.ok()) return exchange.respond(error_response(to_api_error(known)));
  exchange.respond({.body = describe(*api.model).dump()});
}

void handle_health(const Api& api, Exchange& exchange) {
  const EngineStats stats = api.engine->stats();
  const absl::Status ready = check_ready(*api.engine);
  ordered_json body = {{"status", ready.ok() ? "ready" : "not ready"},
                       {"epoch", stats.epoch},
                       {"running", stats.running},
                       {"waiting", stats.waiting}};
  if (!ready.ok()) body["message"] = std::string(ready.message());
  exchange.respond({.status = ready.ok() ? 200 : 503, .body = body.dump()});
}

void handle_version(const Api&, Exchange& exchange) {
  exchange.respond({.body = ordered_json{{"version", QUIRE_VERSION}}.dump()});
}

}  // namespace quire
