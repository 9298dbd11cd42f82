#include "bench/serve/http_client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::bench {
namespace {

namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Connection {
 public:
  absl::Status open(const Endpoint& endpoint) {
    boost::system::error_code error;
    tcp::resolver resolver(io_);
    const auto addresses = resolver.resolve(endpoint.host, endpoint.port, error);
    if (!error) boost::asio::connect(socket_, addresses, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("cannot reach ", endpoint.host, ":", endpoint.port, ": ", error.message()));
    }
    socket_.set_option(tcp::no_delay(true), error);
    return absl::OkStatus();
  }

  // Sends and reads to the end; `on_data` sees the body as it arrives.
  template <typename OnData>
  absl::Status run(const http::request<http::string_body>& request, OnData on_data) {
    boost::system::error_code error;
    http::write(socket_, request, error);
    boost::beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.eager(true);
    parser.body_limit(std::uint64_t{1} << 40);
    std::size_t seen = 0;
    while (!error && !parser.is_done()) {
      // Whatever has come is parsed at once: a helper that waits for more would hide the gaps.
      buffer.commit(socket_.read_some(buffer.prepare(65536), error));
      while (!error && buffer.size() > 0 && !parser.is_done()) {
        buffer.consume(parser.put(buffer.data(), error));
      }
      if (error == http::error::need_more) error = {};
      const std::string& body = parser.get().body();
      if (body.size() > seen) on_data(body.substr(seen));
      seen = body.size();
    }
    if (error && error != boost::asio::error::eof) {
      return absl::UnavailableError(absl::StrCat("the connection failed: ", error.message()));
    }
    if (parser.get().result() != http::status::ok) {
      return absl::UnknownError(
          absl::StrCat("HTTP ", parser.get().result_int(), ": ", parser.get().body()));
    }
    return absl::OkStatus();
  }

 private:
  boost::asio::io_context io_;
  tcp::socket socket_{io_};
};

http::request<http::string_body> make_request(const Endpoint& endpoint, http::verb verb,
                                              const std::string& target, std::string body) {
  http::request<http::string_body> request(verb, target, 11);
  request.set(http::field::host, absl::StrCat(endpoint.host, ":", endpoint.port));
  request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  return request;
}

// Server-sent events out of pieces of a body.
class Events {
 public:
  template <typename OnEvent>
  void push(const std::string& piece, OnEvent on_event) {
    pending_ += piece;
    for (std::size_t end; (end = pending_.find('\n')) != std::string::npos;) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.rfind("data: ", 0) == 0 && line != "data: [DONE]") on_event(line.substr(6));
    }
  }

 private:
  std::string pending_;
};

}  // namespace

absl::StatusOr<Timing> complete(const Endpoint& endpoint, const Call& call) {
  const nlohmann::json body = {{"model", endpoint.model},
                               {"prompt", call.prompt},
                               {"max_tokens", call.max_tokens},
                               {"temperature", 0.0},
                               {"ignore_eos", true},
                               {"stream", true},
                               {"stream_options", {{"include_usage", true}}}};
  Connection connection;
  if (absl::Status status = connection.open(endpoint); !status.ok()) return status;
  Timing timing;
  Events events;
  int chunks = 0;
  double last = 0;
  const Clock::time_point start = Clock::now();
  timing.sent_at_s = std::chrono::duration<double>(start.time_since_epoch()).count();
  const absl::Status status =
      connection.run(make_request(endpoint, http::verb::post, "/v1/completions", body.dump()),
                     [&](const std::string& piece) {
                       events.push(piece, [&](const std::string& data) {
                         const nlohmann::json event = nlohmann::json::parse(data, nullptr, false);
                         if (event.is_discarded()) return;
                         if (event.contains("usage") && event["usage"].is_object()) {
                           timing.output_tokens = event["usage"].value("completion_tokens", 0);
                         }
                         if (!event.contains("choices") || event["choices"].empty()) return;
                         const double now = seconds_since(start);
                         if (chunks++ == 0) {
                           timing.ttft_s = now;
                         } else {
                           timing.chunk_gaps_s.push_back(now - last);
                         }
                         last = now;
                       });
                     });
  if (!status.ok()) return status;
  timing.end_s = last;
  return timing;
}

absl::StatusOr<std::string> first_model(const Endpoint& endpoint) {
  Connection connection;
  if (absl::Status status = connection.open(endpoint); !status.ok()) return status;
  std::string all;
  const absl::Status status =
      connection.run(make_request(endpoint, http::verb::get, "/v1/models", ""),
                     [&](const std::string& piece) { all += piece; });
  if (!status.ok()) return status;
  const nlohmann::json models = nlohmann::json::parse(all, nullptr, false);
  if (models.is_discarded() || !models.contains("data") || models["data"].empty()) {
    return absl::UnknownError("/v1/models lists no model");
  }
  return models["data"][0].value("id", "");
}

}  // namespace quire::bench
