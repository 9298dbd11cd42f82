// Listening, accepting, stopping.
//
// Stopping closes the acceptor, lets answers under way be written for a moment, closes every
// session, gives up the work guard and lets the threads run until nothing is queued: so no session
// outlives the io_context, and none is destroyed while one of its handlers runs.
#include "coordinator/api/http_server.h"

#include <sys/resource.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/api/routes.h"
#include "coordinator/api/session.h"
#include "coordinator/api/tls_context.h"

namespace quire {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;

namespace {

// Two: while one parses and encodes a long prompt, the other keeps the streams going.
constexpr int kIoThreads = 2;
constexpr std::chrono::milliseconds kAcceptPause{100};  // after "too many open files"
constexpr std::chrono::milliseconds kStopGrace{1000};
constexpr std::chrono::milliseconds kStopPoll{2};

// Each connection is a descriptor; the soft limit is often 1024 where the hard one is far larger.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpHandler handler, const HttpLimits& limits, std::unique_ptr<asio::ssl::context> tls)
      : handler_(std::move(handler)), limits_(limits), tls_(std::move(tls)) {}

  absl::Status listen(const std::string& host, int port) {
    boost::system::error_code error;
    Tcp::resolver resolver(context_);
    const auto found = resolver.resolve(
        host, std::to_string(port), Tcp::resolver::passive | Tcp::resolver::numeric_service, error);
    const auto failed = [&](const char* what) {
      return absl::UnavailableError(absl::StrCat(
          "cannot listen for HTTP on ", host, ":", port, " (", what, ": ", error.message(),
          "); choose another --port or --host, or end the program that uses it"));
    };
    if (error || found.empty()) return failed("looking up the host");
    const Tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (error) return failed("opening a socket");
    acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
    acceptor_.bind(endpoint, error);
    if (error) return failed("binding");
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return failed("listening");
    port_ = acceptor_.local_endpoint().port();
    return absl::OkStatus();
  }

  void run() {
    accept();
    for (int i = 0; i < kIoThreads; ++i) {
      threads_.emplace_back([this] { context_.run(); });
    }
  }

  void stop() {
    if (std::exchange(stopped_, true)) return;
    asio::post(strand_, [this] {
      boost::system::error_code ignored;
      closing_ = true;
      acceptor_.close(ignored);
      each_session([](Session& session) { session.finish_soon(); });
      poll_end(std::chrono::steady_clock::now() + kStopGrace);
    });
    for (std::thread& thread : threads_) thread.join();
  }

  int port() const { return port_; }

  int num_connections() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(sessions_.size());
  }

 private:
  void accept() {
    acceptor_.async_accept(asio::make_strand(context_),
                           [this](boost::system::error_code error, Tcp::socket socket) {
                             if (closing_) return;
                             if (error) return accept_later();
                             open(std::move(socket));
                             accept();
                           });
  }

  void accept_later() {
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](boost::system::error_code error) {
      if (!error && !closing_) accept();
    });
  }

  void open(Tcp::socket socket) {
    if (num_connections() >= limits_.connections) return;  // closes the socket
    const auto executor = socket.get_executor();
    auto session = std::make_shared<Session>(std::move(socket), tls_.get(), limits_, handler_,
                                             [this](Session* gone) { forget(gone); });
    {
      const std::lock_guard lock(mutex_);
      sessions_.emplace(session.get(), session);
    }
    asio::post(executor, [session] { session->start(); });
  }

  void forget(Session* session) {
    const std::lock_guard lock(mutex_);
    sessions_.erase(session);
  }

  // Waits until the sessions have ended by themselves, then ends the rest.
  void poll_end(std::chrono::steady_clock::time_point deadline) {
    if (num_connections() == 0 || std::chrono::steady_clock::now() >= deadline) {
      each_session([](Session& session) { session.close_soon(); });
      guard_.reset();
      return;
    }
    pause_.expires_after(kStopPoll);
    pause_.async_wait([this, deadline](boost::system::error_code) { poll_end(deadline); });
  }

  template <typename Fn>
  void each_session(Fn fn) {
    std::vector<std::shared_ptr<Session>> open;  // released after the lock: forget() takes it
    const std::lock_guard lock(mutex_);
    for (const auto& [key, weak] : sessions_) {
      if (auto session = weak.lock()) open.push_back(std::move(session));
    }
    for (const auto& session : open) fn(*session);
  }

  const HttpHandler handler_;
  const HttpLimits limits_;
  const std::unique_ptr<asio::ssl::context> tls_;  // null: plain HTTP
  asio::io_context context_{kIoThreads};
  asio::executor_work_guard<asio::io_context::executor_type> guard_{context_.get_executor()};
  asio::strand<asio::io_context::executor_type> strand_{context_.get_executor()};
  Tcp::acceptor acceptor_{strand_};
  asio::steady_timer pause_{strand_};
  int port_ = 0;
  bool closing_ = false;  // on the strand
  bool stopped_ = false;
  std::vector<std::thread> threads_;
  mutable std::mutex mutex_;
  absl::flat_hash_map<Session*, std::weak_ptr<Session>> sessions_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() {
  stop();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start(const Api& api,
                                                              const std::string& host, int port,
                                                              const HttpLimits& limits,
                                                              const HttpTls& tls) {
  return start_with(make_routes(api), host, port, limits, tls);
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start_with(HttpHandler handler,
                                                                   const std::string& host,
                                                                   int port,
                                                                   const HttpLimits& limits,
                                                                   const HttpTls& tls) {
  raise_descriptor_limit();
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<asio::ssl::context> context, make_tls_context(tls));
  auto impl = std::make_unique<Impl>(std::move(handler), limits, std::move(context));
  QUIRE_RETURN_IF_ERROR(impl->listen(host, port));
  impl->run();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const {
  return impl_->port();
}
int HttpServer::num_connections() const {
  return impl_->num_connections();
}
void HttpServer::stop() {
  impl_->stop();
}

}  // namespace quire
