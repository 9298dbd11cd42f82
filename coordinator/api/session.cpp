// Reading and dispatching of one connection, and its deadline. Writing: session_write.cpp.
#include "coordinator/api/session.h"

#include <boost/asio/post.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/api/api_error.h"

namespace quire {

namespace asio = boost::asio;
namespace http = boost::beast::http;

namespace {

constexpr std::size_t kReadBytes = 2 << 10;  // waiting for a header, or for a leave
constexpr std::size_t kBodyReadBytes = 64 << 10;
constexpr std::size_t kMaxReadAhead = 32 << 10;  // of pipelined requests
constexpr std::size_t kMaxRequestIdBytes = 128;

// A client's id goes into a header and into logs: visible ASCII without quotes, or we make one.
bool acceptable_id(absl::string_view id) {
  if (id.empty() || id.size() > kMaxRequestIdBytes) return false;
  for (const char c : id) {
    if (c <= ' ' || c > '~' || c == '"' || c == '\\') return false;
  }
  return true;
}

}  // namespace

Session::Session(SocketStream::Tcp::socket socket, asio::ssl::context* tls,
                 const HttpLimits& limits, const HttpHandler& handler,
                 std::function<void(Session*)> on_close)
    : stream_(std::move(socket), tls),
      timer_(stream_.get_executor()),
      limits_(limits),
      handler_(handler),
      on_close_(std::move(on_close)) {}

Session::~Session() {
  exchange_.reset();
  on_close_(this);
}

void Session::start() {
  if (phase_ == Phase::kClosed) return;
  stream_.set_no_delay();
  if (!stream_.is_tls()) return next_request();
  phase_ = Phase::kHandshake;
  set_deadline(limits_.header);
  stream_.async_handshake(
      [self = shared_from_this()](ErrorCode error) { self->on_handshake(error); });
}

void Session::on_handshake(ErrorCode error) {
  if (phase_ == Phase::kClosed) return;
  if (error) return close();
  next_request();
}

void Session::finish_soon() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    self->stopping_ = true;
    self->keep_alive_ = false;
    if (self->phase_ != Phase::kAnswering) self->close();
  });
}

void Session::close_soon() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] { self->close(); });
}

void Session::read() {
  if (reading_ || phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kAnswering && buffer_.size() > kMaxReadAhead) return;
  reading_ = true;
  const std::size_t size = phase_ == Phase::kBody ? kBodyReadBytes : kReadBytes;
  if (incoming_.size() != size) incoming_ = std::string(size, '\0');
  stream_.async_read_some(asio::buffer(incoming_),
                          [self = shared_from_this()](ErrorCode error, std::size_t num_bytes) {
                            self->on_read(error, num_bytes);
                          });
}

void Session::on_read(ErrorCode error, std::size_t num_bytes) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) {
    if (phase_ == Phase::kLingering && stream_.leave_tls()) return read();
    return client_gone();
  }
  buffer_.append(incoming_, 0, num_bytes);
  switch (phase_) {
    case Phase::kIdle:
      return next_request();
    case Phase::kHeader:
    case Phase::kBody:
      return parse();
    case Phase::kLingering:
      buffer_.clear();
      return read();
    case Phase::kAnswering:
      return read();
    case Phase::kHandshake:
    case Phase::kClosed:
      return;
  }
}

// Begins the next request with what has already arrived, or waits for its first byte.
void Session::next_request() {
  if (buffer_.empty()) {
    phase_ = Phase::kIdle;
    parser_.reset();
    set_deadline(limits_.idle);
    return read();
  }
  phase_ = Phase::kHeader;
  header_checked_ = false;
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<std::uint32_t>(limits_.header_bytes));
  parser_->body_limit(limits_.body_bytes);
  set_deadline(limits_.header);
  parse();
}

void Session::parse() {
  ErrorCode error;
  while (!parser_->is_done()) {
    const std::size_t used = parser_->put(asio::buffer(buffer_), error);
    buffer_.erase(0, used);
    if (error && error != http::error::need_more) return refuse_parse_error(error);
    if (parser_->is_header_done() && !header_checked_) {
      header_checked_ = true;
      if (!accept_header()) return;
    }
    if (error == http::error::need_more || buffer_.empty()) break;
  }
  if (!parser_->is_done()) return read();
  dispatch();
}

// What can be judged before the body arrives. False: refused.
bool Session::accept_header() {
  const auto& fields = parser_->get();
  keep_alive_ = parser_->keep_alive();
  const absl::string_view encoding(fields[http::field::content_encoding].data(),
                                   fields[http::field::content_encoding].size());
  if (!encoding.empty() && !absl::EqualsIgnoreCase(encoding, "identity")) {
    refuse(415, "unsupported_content_encoding",
           absl::StrCat("Content-Encoding `", absl::CHexEscape(encoding.substr(0, 40)),
                        "` is not supported; send the body uncompressed."));
    return false;
  }
  const absl::string_view expect(fields[http::field::expect].data(),
                                 fields[http::field::expect].size());
  if (!expect.empty() && !absl::EqualsIgnoreCase(expect, "100-continue")) {
    refuse(417, "expectation_failed", "The only supported expectation is 100-continue.");
    return false;
  }
  phase_ = Phase::kBody;
  set_deadline(limits_.body);
  if (!expect.empty() && !parser_->is_done() && fields.version() >= 11) {
    head_.append("HTTP/1.1 100 Continue\r\n\r\n");
    flush();
  }
  return true;
}

// Answers without a handler and closes: what follows on this connection cannot be trusted.
void Session::refuse(int status, absl::string_view code, const std::string& message) {
  phase_ = Phase::kAnswering;
  keep_alive_ = false;
  head_only_ = false;
  request_id_ = random_hex(16);
  respond(error_response({.status = status, .message = message, .code = std::string(code)}));
}

void Session::refuse_parse_error(ErrorCode error) {
  if (error == http::error::header_limit) {
    return refuse(
        431, "header_too_large",
        absl::StrCat("The request's header is larger than ", limits_.header_bytes, " bytes."));
  }
  if (error == http::error::body_limit) {
    return refuse(
        413, "body_too_large",
        absl::StrCat("The request's body is larger than ", limits_.body_bytes, " bytes."));
  }
  refuse(400, "bad_request",
         absl::StrCat("The request is not valid HTTP/1.1: ", error.message(), "."));
}

HttpRequest Session::take_request() {
  auto message = parser_->release();
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  for (const auto& field : message) {
    const absl::string_view name(field.name_string().data(), field.name_string().size());
    request.headers.emplace_back(absl::AsciiStrToLower(name), std::string(field.value()));
  }
  request.body = std::move(message.body());
  const absl::string_view id = request.header("x-request-id");
  request.id = acceptable_id(id) ? std::string(id) : random_hex(16);
  return request;
}

void Session::dispatch() {
  phase_ = Phase::kAnswering;
  clear_deadline();
  chunked_ = parser_->get().version() >= 11;
  HttpRequest request = take_request();
  parser_.reset();
  request_id_ = request.id;
  head_only_ = request.method == "HEAD";
  auto path = normalise_path(request.target);
  if (!path.ok()) {
    return refuse(400, "bad_request",
                  absl::StrCat("The request's path is not usable: ", path.status().message(), "."));
  }
  request.path = *std::move(path);
  exchange_ = std::make_unique<Exchange>(this, std::move(request));
  read();
  handler_(*exchange_);
}

// The other side has closed, or the connection broke. What is already complete may still be
// written; anything else has lost its reader.
void Session::client_gone() {
  if (phase_ == Phase::kAnswering && answer_complete_) {
    keep_alive_ = false;
    return;
  }
  close();
}

void Session::run_wake() {
  if (!exchange_ || answer_complete_ || phase_ == Phase::kClosed) return;
  exchange_->waker_->served();
  exchange_->on_wake_();
}

void Session::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  stream_.close();
  ErrorCode ignored;
  timer_.cancel(ignored);
  if (!exchange_) return;
  if (!answer_complete_ && exchange_->on_abort_) exchange_->on_abort_();
  exchange_.reset();
}

void Session::set_deadline(std::chrono::milliseconds from_now) {
  deadline_ = std::chrono::steady_clock::now() + from_now;
  if (!timer_armed_ || deadline_ < armed_for_) arm_timer();
}

void Session::clear_deadline() {
  deadline_ = std::chrono::steady_clock::time_point::max();
}

void Session::arm_timer() {
  timer_armed_ = true;
  armed_for_ = deadline_;
  timer_.expires_at(deadline_);  // cancels the earlier wait, whose handler sees the error
  timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (!error) self->on_timer();
  });
}

void Session::on_timer() {
  timer_armed_ = false;
  if (phase_ == Phase::kClosed) return;
  if (std::chrono::steady_clock::now() >= deadline_) return on_deadline();
  if (deadline_ != std::chrono::steady_clock::time_point::max()) arm_timer();
}

void Session::on_deadline() {
  clear_deadline();
  if (!writing_.empty() || phase_ == Phase::kHandshake || phase_ == Phase::kIdle ||
      phase_ == Phase::kLingering) {
    return close();
  }
  if (phase_ == Phase::kHeader || phase_ == Phase::kBody) {
    refuse(408, "request_timeout",
           phase_ == Phase::kHeader ? "The request's header did not arrive in time."
                                    : "The request's body did not arrive in time.");
  }
}

}  // namespace quire
