// Answering and writing of one connection. Framing is written by hand: a status line, fields, and
// either Content-Length or chunks; whatever has gathered while a write was in flight becomes one
// chunk.
#include <boost/asio/post.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/api/session.h"

namespace quire {

namespace asio = boost::asio;

Exchange::Exchange(Session* session, HttpRequest request)
    : session_(session), request_(std::move(request)) {}

Exchange::~Exchange() {
  if (waker_) waker_->close();
}

void Exchange::respond(HttpResponse response) {
  session_->respond(std::move(response));
}
void Exchange::start_events(bool bounded) {
  session_->start_events(bounded);
}
void Exchange::send_event(absl::string_view data, absl::string_view id) {
  session_->send_event(data, id);
}
void Exchange::end_events() {
  session_->end_events();
}

std::shared_ptr<Waker> Exchange::keep_running(std::function<void()> on_wake,
                                              std::function<void()> on_abort) {
  on_wake_ = std::move(on_wake);
  on_abort_ = std::move(on_abort);
  waker_ = std::make_shared<Waker>(
      [weak = session_->weak_from_this(), executor = session_->stream_.get_executor()] {
        // Posting with a weak pointer: a wake never keeps a closed connection alive.
        asio::post(executor, [weak] {
          if (const auto session = weak.lock()) session->run_wake();
        });
      });
  return waker_;
}

void Session::put_head(int status, const HttpResponse& response, bool has_length) {
  absl::StrAppend(&head_, "HTTP/1.1 ", status, " ", reason_phrase(status), "\r\n",
                  "X-Request-Id: ", request_id_, "\r\n");
  if (status != 204) {
    absl::StrAppend(&head_, "Content-Type: ", response.content_type, "\r\n");
    if (has_length) {
      absl::StrAppend(&head_, "Content-Length: ", response.body.size(), "\r\n");
    } else if (chunked_) {
      head_.append("Transfer-Encoding: chunked\r\n");
    }
  }
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head_, name, ": ", value, "\r\n");
  }
  absl::StrAppend(&head_, "Connection: ", keep_alive_ ? "keep-alive" : "close", "\r\n\r\n");
}

void Session::respond(HttpResponse response) {
  if (phase_ == Phase::kClosed || answer_complete_) return;
  chunked_ = false;
  put_head(response.status, response, true);
  if (!head_only_) pending_.append(response.body);
  answer_complete_ = true;
  flush();
}

void Session::start_events(bool bounded) {
  if (phase_ == Phase::kClosed) return;
  bounded_ = bounded;
  if (!chunked_) keep_alive_ = false;  // HTTP/1.0: the end of the connection is the end
  put_head(200,
           {.content_type = "text/event-stream; charset=utf-8",
            .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}},
           false);
  flush();
}

void Session::send_event(absl::string_view data, absl::string_view id) {
  if (phase_ == Phase::kClosed || answer_complete_ || cut_) return;
  absl::StrAppend(&pending_, "data: ", data, id.empty() ? "" : "\nid: ", id, "\n\n");
  if (bounded_ && pending_.size() > limits_.unsent_bytes) {
    cut_ = true;
    return close_soon();  // not at once: the exchange's own code is below us on the stack
  }
  flush();
}

void Session::end_events() {
  if (phase_ == Phase::kClosed || answer_complete_ || cut_) return;
  answer_complete_ = true;
  if (!chunked_ && writing_.empty() && head_.empty() && pending_.empty()) {
    // HTTP/1.0 and nothing left to write. Not at once, as above.
    return asio::post(stream_.get_executor(), [self = shared_from_this()] {
      if (self->phase_ == Phase::kAnswering) self->answer_done();
    });
  }
  flush();
}

// Hands everything that has gathered to one write, unless one is in flight.
void Session::flush() {
  if (!writing_.empty() || phase_ == Phase::kClosed) return;
  writing_.swap(head_);
  if (!chunked_) {
    writing_.append(pending_);
  } else {
    if (!pending_.empty()) {
      absl::StrAppendFormat(&writing_, "%x\r\n", pending_.size());
      absl::StrAppend(&writing_, pending_, "\r\n");
    }
    if (answer_complete_) {
      writing_.append("0\r\n\r\n");
      chunked_ = false;  // the last chunk is out
    }
  }
  pending_.clear();
  if (writing_.empty()) return;
  set_deadline(limits_.write);
  stream_.async_write(
      asio::buffer(writing_),
      [self = shared_from_this()](ErrorCode error, std::size_t) { self->on_written(error); });
}

void Session::on_written(ErrorCode error) {
  writing_.clear();
  if (phase_ == Phase::kClosed) return;
  if (error) return close();
  if (phase_ == Phase::kBody) return set_deadline(limits_.body);  // that was a 100 Continue
  clear_deadline();
  if (!head_.empty() || !pending_.empty() || chunked_) return flush();
  if (answer_complete_) answer_done();
}

// The whole answer is in the kernel's hands: on to the next request, or to the end.
void Session::answer_done() {
  exchange_.reset();
  answer_complete_ = false;
  chunked_ = false;
  if (stopping_) return close();
  if (!keep_alive_) return linger();
  next_request();
}

void Session::linger() {
  phase_ = Phase::kLingering;
  // On an error more may still come to be thrown away: the read in flight goes on.
  stream_.finish_sending([self = shared_from_this()](ErrorCode error) {
    if (!error) self->close();
  });
  buffer_.clear();
  set_deadline(limits_.linger);
  read();
}
}  // namespace quire
