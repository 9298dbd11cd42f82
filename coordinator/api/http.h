// HTTP as the routes see it: a request, an answer, and the exchange that joins them. Nothing here
// knows Beast or sockets; session.cpp implements Exchange.
//
// Ownership: the connection owns its Exchange; the Exchange owns the work that goes on after the
// handler has returned (the two functions given to keep_running). Everything but Waker::wake
// happens on the connection's own strand, so neither handlers nor work need locks.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

struct HttpRequest {
  std::string method;                                        // upper case, as sent
  std::string target;                                        // as sent
  std::string path;                                          // normalise_path(target)
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string id;  // the client's X-Request-Id, or one that was made

  // The value of `name` (lower case); empty when absent. `count` says how often it was sent.
  absl::string_view header(absl::string_view name) const;
  int count(absl::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string body{};
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers{};
};

// The path of a request target: without query, percent-decoded, without empty, `.` and `..`
// segments and without a trailing slash. Access rules and routes look at this one form only, so no
// spelling of a path gets round them. InvalidArgument for a malformed escape, a control character
// or a path that climbs above the root.
absl::StatusOr<std::string> normalise_path(absl::string_view target);

absl::string_view reason_phrase(int status);
std::string random_hex(int num_bytes);

// Lets another thread (the engine's) call a connection back. Outlives the connection harmlessly:
// after close() wake() does nothing. Wakes that arrive before the last one was served are one.
class Waker {
 public:
  explicit Waker(std::function<void()> post) : post_(std::move(post)) {}
  void wake();    // any thread; never blocks for long
  void served();  // the connection is about to look: later wakes count again
  void close();   // waits for a wake() that is under way

 private:
  std::mutex mutex_;
  std::function<void()> post_;
  bool pending_ = false;
};

class Session;

class Exchange {
 public:
  Exchange(Session* session, HttpRequest request);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const HttpRequest& request() const { return request_; }
  // Who asks: an index into the server's tenants, set from the key before any handler runs.
  int tenant() const { return tenant_; }
  void set_tenant(int tenant) { tenant_ = tenant; }

  // Either one whole answer ...
  void respond(HttpResponse response);
  // ... or a stream of server-sent events. Events that wait while a write is in flight leave in
  // one piece. `bounded`: a client that lets too much wait is dropped; not where all of an answer
  // comes at once.
  void start_events(bool bounded = true);
  // One line, without "data: ". `id` (may be empty) is what Last-Event-ID brings back.
  void send_event(absl::string_view data, absl::string_view id = {});
  void end_events();

  // Work goes on after the handler's return. `on_wake` runs after each wake of the returned Waker;
  // `on_abort` at most once, when the client has gone, does not read, or the server stops; neither
  // runs after the other's last act. Both are destroyed with the exchange.
  std::shared_ptr<Waker> keep_running(std::function<void()> on_wake,
                                      std::function<void()> on_abort);

 private:
  friend class Session;
  Session* session_;
  HttpRequest request_;
  int tenant_ = 0;
  std::shared_ptr<Waker> waker_;
  std::function<void()> on_wake_;
  std::function<void()> on_abort_;
};

using HttpHandler = std::function<void(Exchange&)>;

}  // namespace quire
