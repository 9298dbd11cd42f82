// A blocking client of an OpenAI-compatible server: one streamed answer on a connection of its own,
// with the times a benchmark needs. Every wait ends with the endpoint's timeout.
#pragma once

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve/load.h"
#include "bench/serve/stats.h"

namespace quire::bench {

struct Endpoint {
  std::string host = "127.0.0.1";
  std::string port = "8000";
  std::string path = "/v1/completions";
  bool chat = false;  // messages with the prompt's text, instead of a prompt of token ids
  std::string model;  // the served name
  std::string api_key;
  bool ignore_eos = true;
  double temperature = 0;
  double timeout_s = 21600;                              // for a whole answer
  nlohmann::json extra_body = nlohmann::json::object();  // wins over the fields above
};

// `http://HOST:PORT` or `HOST:PORT` into an endpoint's host and port.
absl::Status set_address(const std::string& url, Endpoint* endpoint);

// The body that asks for `call`, streamed and with a usage at its end.
nlohmann::json request_body(const Endpoint& endpoint, const Call& call);
// Sends it and reads the stream to its end, or until `*stop` is true (checked ten times a second;
// what came until then is returned, the connection closed).
absl::StatusOr<Timing> complete(const Endpoint& endpoint, const Call& call,
                                const std::atomic<bool>* stop = nullptr);
// The id of the first model that /v1/models lists.
absl::StatusOr<std::string> first_model(const Endpoint& endpoint);

}  // namespace quire::bench
