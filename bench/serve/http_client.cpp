#include "bench/serve/http_client.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quire::bench {
namespace {

namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using Request = http::request<http::string_body>;

constexpr int kLookMs = 100;              // how often a wait looks at its stop flag
constexpr double kQuestionWithinS = 30;   // for an answer of /v1/models
constexpr std::size_t kErrorBytes = 400;  // of a refusal's body, in a message

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Connection {
 public:
  Connection(double timeout_s, const std::atomic<bool>* stop)
      : timeout_s_(timeout_s), stop_(stop) {}

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
  absl::Status run(const Request& request, OnData on_data) {
    start_ = Clock::now();
    boost::system::error_code error;
    http::write(socket_, request, error);
    boost::beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.eager(true);
    parser.body_limit(std::uint64_t{1} << 40);
    std::size_t seen = 0;
    while (!error && !parser.is_done()) {
      if (absl::Status status = wait(); !status.ok()) return status;
      if (stop_ != nullptr && *stop_) return absl::OkStatus();
      // Whatever has come is parsed at once: a helper that waits for more would hide the gaps.
      buffer.commit(socket_.read_some(buffer.prepare(65536), error));
      if (error == boost::asio::error::eof) {
        error = {};
        parser.put_eof(error);  // the end of a body of no declared length; else an error
        break;
      }
      while (!error && buffer.size() > 0 && !parser.is_done()) {
        buffer.consume(parser.put(buffer.data(), error));
      }
      if (error == http::error::need_more) error = {};
      const std::string& body = parser.get().body();
      if (body.size() > seen) on_data(body.substr(seen));
      seen = body.size();
    }
    if (error) {
      return absl::UnavailableError(absl::StrCat("the connection failed: ", error.message()));
    }
    if (parser.get().result() != http::status::ok) {
      return absl::UnknownError(absl::StrCat("HTTP ", parser.get().result_int(), ": ",
                                             parser.get().body().substr(0, kErrorBytes)));
    }
    return absl::OkStatus();
  }

 private:
  // Until there is something to read (or the end of the stream), or `*stop_`.
  absl::Status wait() {
    while (true) {
      pollfd readable = {socket_.native_handle(), POLLIN, 0};
      if (poll(&readable, 1, kLookMs) > 0) return absl::OkStatus();
      if (stop_ != nullptr && *stop_) return absl::OkStatus();
      if (seconds_since(start_) > timeout_s_) {
        return absl::DeadlineExceededError(
            absl::StrCat("no end of the answer within ", timeout_s_, " s"));
      }
    }
  }

  boost::asio::io_context io_;
  tcp::socket socket_{io_};
  double timeout_s_;
  const std::atomic<bool>* stop_;
  Clock::time_point start_;
};

Request make_request(const Endpoint& endpoint, http::verb verb, const std::string& target,
                     std::string body) {
  Request request(verb, target, 11);
  request.set(http::field::host, absl::StrCat(endpoint.host, ":", endpoint.port));
  request.set(http::field::content_type, "application/json");
  if (!endpoint.api_key.empty()) {
    request.set(http::field::authorization, absl::StrCat("Bearer ", endpoint.api_key));
  }
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
      if (!absl::StartsWith(line, "data:")) continue;
      const std::size_t begin = line.find_first_not_of(' ', 5);
      if (begin != std::string::npos && line.compare(begin, 6, "[DONE]") != 0) {
        on_event(line.substr(begin));
      }
    }
  }

 private:
  std::string pending_;
};

// The chunks of one stream, as they come.
struct Stream {
  Clock::time_point start = Clock::now();
  Timing timing;
  int chunks = 0, counted = 0;
  double last = 0;
  std::string error;

  void take(const std::string& data) {
    const nlohmann::json event = nlohmann::json::parse(data, nullptr, false);
    if (!event.is_object()) return;
    if (event.contains("error")) error = event["error"].dump().substr(0, kErrorBytes);
    if (event.contains("usage") && event["usage"].is_object()) {
      counted = event["usage"].value("completion_tokens", 0);
    }
    if (!event.contains("choices") || event["choices"].empty()) return;
    const double now = seconds_since(start);
    if (chunks++ == 0) {
      timing.ttft_s = now;
    } else {
      timing.chunk_gaps_s.push_back(now - last);
    }
    last = now;
  }
};

}  // namespace

absl::Status set_address(const std::string& url, Endpoint* endpoint) {
  std::string rest = url;
  if (absl::StartsWith(rest, "https://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", url, "` asks for TLS, which is not built; give an http:// address"));
  }
  if (absl::StartsWith(rest, "http://")) rest = rest.substr(7);
  while (absl::EndsWith(rest, "/")) rest.pop_back();
  const std::size_t colon = rest.rfind(':');
  int port = 80;
  if (colon != std::string::npos &&
      (!absl::SimpleAtoi(rest.substr(colon + 1), &port) || port < 1 || port > 65535)) {
    return absl::InvalidArgumentError(absl::StrCat("`", url, "` has no port from 1 to 65535"));
  }
  endpoint->host = rest.substr(0, colon);
  endpoint->port = absl::StrCat(port);
  if (endpoint->host.empty() || endpoint->host.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("`", url, "` is not http://HOST:PORT"));
  }
  return absl::OkStatus();
}

nlohmann::json request_body(const Endpoint& endpoint, const Call& call) {
  nlohmann::json body = {{"model", endpoint.model},
                         {"temperature", endpoint.temperature},
                         {"stream", true},
                         {"stream_options", {{"include_usage", true}}}};
  if (endpoint.ignore_eos) body["ignore_eos"] = true;
  if (endpoint.chat) {
    body["messages"] = {{{"role", "user"}, {"content", call.text}}};
    body["max_completion_tokens"] = call.max_tokens;
  } else {
    body["prompt"] = call.prompt;
    body["max_tokens"] = call.max_tokens;
  }
  body.update(endpoint.extra_body);
  return body;
}

absl::StatusOr<Timing> complete(const Endpoint& endpoint, const Call& call,
                                const std::atomic<bool>* stop) {
  const Request request =
      make_request(endpoint, http::verb::post, endpoint.path, request_body(endpoint, call).dump());
  Connection connection(endpoint.timeout_s, stop);
  if (absl::Status status = connection.open(endpoint); !status.ok()) return status;
  Events events;
  Stream stream;
  stream.timing.sent_at_s = std::chrono::duration<double>(stream.start.time_since_epoch()).count();
  const absl::Status status = connection.run(request, [&](const std::string& piece) {
    events.push(piece, [&](const std::string& data) { stream.take(data); });
  });
  if (!status.ok()) return status;
  if (!stream.error.empty()) return absl::UnknownError(stream.error);
  if (stream.chunks == 0 && (stop == nullptr || !*stop)) {
    return absl::UnknownError("the stream ended without a chunk that has choices");
  }
  stream.timing.end_s = stream.last;
  stream.timing.output_tokens = stream.counted > 0 ? stream.counted : stream.chunks;
  return stream.timing;
}

absl::StatusOr<std::string> first_model(const Endpoint& endpoint) {
  Connection connection(std::min(endpoint.timeout_s, kQuestionWithinS), nullptr);
  if (absl::Status status = connection.open(endpoint); !status.ok()) return status;
  std::string all;
  const absl::Status status =
      connection.run(make_request(endpoint, http::verb::get, "/v1/models", ""),
                     [&](const std::string& piece) { all += piece; });
  if (!status.ok()) return status;
  const nlohmann::json models = nlohmann::json::parse(all, nullptr, false);
  if (!models.is_object() || !models.contains("data") || !models["data"].is_array() ||
      models["data"].empty() || !models["data"][0].is_object()) {
    return absl::UnknownError("/v1/models lists no model");
  }
  return models["data"][0].value("id", "");
}

}  // namespace quire::bench
