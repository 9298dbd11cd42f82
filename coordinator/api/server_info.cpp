// GET /v1/models, /health, /version.
#include "absl/strings/str_cat.h"
#include "coordinator/api/api_error.h"
#include "coordinator/api/endpoints.h"
#include "nlohmann/json.hpp"

namespace quire {

using nlohmann::ordered_json;

void handle_models(const Api& api, Exchange& exchange) {
  const ordered_json model = {{"id", api.model->name},
                              {"object", "model"},
                              {"created", api.model->created},
                              {"owned_by", "quire"},
                              {"max_model_len", api.model->max_model_len}};
  const ordered_json body = {{"object", "list"}, {"data", ordered_json::array({model})}};
  exchange.respond({.body = body.dump()});
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
