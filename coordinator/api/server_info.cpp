// GET /v1/models, /v1/models/ID, /health, /ready, /version. /health is for whoever restarts a
// server that is stuck, /ready for whoever sends it requests.
#include <utility>

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

// The same facts for both; the code and the message are the verdict's.
void answer_for(const absl::Status& verdict, const Api& api, Exchange& exchange) {
  const EngineStats stats = api.engine->stats();
  ordered_json body = {{"status", name_of(api.engine->state())},
                       {"epoch", stats.epoch},
                       {"groups", stats.num_groups},
                       {"groups_ready", stats.num_ready},
                       {"running", stats.running},
                       {"waiting", stats.waiting}};
  if (!verdict.ok()) body["message"] = std::string(verdict.message());
  HttpResponse response{.status = verdict.ok() ? 200 : 503, .body = body.dump()};
  if (!verdict.ok()) response.headers.emplace_back("Retry-After", "1");
  exchange.respond(std::move(response));
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
  answer_for(api.engine->check_progress(), api, exchange);
}

void handle_ready(const Api& api, Exchange& exchange) {
  absl::Status verdict = check_ready(*api.engine);
  if (verdict.ok() && !api.engine->stats().journal.writable) {
    verdict = absl::UnavailableError("The journal cannot be written: new requests are refused.");
  }
  answer_for(verdict, api, exchange);
}

void handle_version(const Api&, Exchange& exchange) {
  exchange.respond({.body = ordered_json{{"version", QUIRE_VERSION}}.dump()});
}

}  // namespace quire
