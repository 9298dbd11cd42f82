// One TCP connection of the HTTP server: reads requests, hands each to the handler as an Exchange,
// writes its answer. Beast parses; reading and writing are plain Asio, through SocketStream.
//
// Invariants: at most one read and one write are in flight; a read is always in flight while a
// request is being answered (that is how a client's leaving is seen), unless the client has sent
// more than kMaxReadAhead bytes of further requests. At most one exchange exists at a time.
// Everything runs on the connection's strand except finish_soon() and close_soon().
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>  // Asio 1.74 with g++ 12 needs std::exchange before it is included

#include "coordinator/api/http.h"
#include "coordinator/api/http_limits.h"
#include "coordinator/api/socket_stream.h"

namespace quire {

class Session : public std::enable_shared_from_this<Session> {
 public:
  // `tls` (null: plain HTTP), `limits` and `handler` outlive the session; `on_close` runs once, in
  // the destructor.
  Session(SocketStream::Tcp::socket socket, boost::asio::ssl::context* tls,
          const HttpLimits& limits, const HttpHandler& handler,
          std::function<void(Session*)> on_close);
  ~Session();

  void start();  // once, on the strand
  // Any thread. Closes at once what is between requests; an answer under way may still be written.
  void finish_soon();
  void close_soon();  // any thread

 private:
  friend class Exchange;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using ErrorCode = boost::system::error_code;
  // kHandshake: TLS only. kIdle: no byte of the next request yet. kAnswering: an exchange exists,
  // or its last bytes are being written. kLingering: everything is written and the sending side is
  // shut; what still arrives is thrown away, so that a reset does not destroy an answer on its way.
  enum class Phase { kHandshake, kIdle, kHeader, kBody, kAnswering, kLingering, kClosed };

  // reading
  void on_handshake(ErrorCode error);
  void read();
  void on_read(ErrorCode error, std::size_t num_bytes);
  void next_request();
  void parse();
  bool accept_header();
  void refuse(int status, absl::string_view code, const std::string& message);
  void refuse_parse_error(ErrorCode error);
  void dispatch();
  HttpRequest take_request();
  void client_gone();

  // answering (called by Exchange)
  void respond(HttpResponse response);
  void start_events(bool bounded);
  void send_event(absl::string_view data, absl::string_view id);
  void end_events();
  void run_wake();

  // writing
  void put_head(int status, const HttpResponse& response, bool has_length);
  void flush();
  void on_written(ErrorCode error);
  void answer_done();
  void linger();
  void close();

  // one deadline at a time; the timer is re-armed lazily
  void set_deadline(std::chrono::milliseconds from_now);
  void clear_deadline();
  void arm_timer();
  void on_timer();
  void on_deadline();

  SocketStream stream_;
  boost::asio::steady_timer timer_;
  const HttpLimits& limits_;
  const HttpHandler& handler_;
  std::function<void(Session*)> on_close_;

  Phase phase_ = Phase::kIdle;
  std::string incoming_;  // where the read in flight puts its bytes
  std::string buffer_;    // bytes read and not parsed; never touched by a read in flight
  std::optional<Parser> parser_;
  bool reading_ = false;
  bool header_checked_ = false;

  std::unique_ptr<Exchange> exchange_;
  bool keep_alive_ = true;
  bool stopping_ = false;   // finish_soon() was called
  bool head_only_ = false;  // HEAD: everything but the body
  bool chunked_ = false;    // the answer is a stream of unknown length
  bool answer_complete_ = false;
  bool bounded_ = true;  // what may wait for this client
  bool cut_ = false;     // the client does not read: close_soon() is on its way
  std::string request_id_;

  std::string head_;     // status line and fields, not yet handed to a write
  std::string pending_;  // body bytes, not yet handed to a write
  std::string writing_;  // what the write in flight holds; empty = none

  std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::time_point::max();
  bool timer_armed_ = false;
  std::chrono::steady_clock::time_point armed_for_;
};

}  // namespace quire
