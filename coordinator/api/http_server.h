// The HTTP server: listens, keeps a few I/O threads, gives each connection a Session on a strand of
// its own. All of Asio is behind Impl.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/api/http.h"
#include "coordinator/api/http_limits.h"
#include "coordinator/api/http_tls.h"
#include "coordinator/api/service.h"

namespace quire {

class HttpServer {
 public:
  // Serves the routes of routes.h. `api` and what it points to outlive the server. Port 0: any free
  // one. Unavailable, with a sentence, when the address cannot be listened on; InvalidArgument when
  // TLS cannot use its files.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start(const Api& api, const std::string& host,
                                                           int port, const HttpLimits& limits = {},
                                                           const HttpTls& tls = {});
  // The same for any handler, which runs on the I/O threads, several at a time.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start_with(HttpHandler handler,
                                                                const std::string& host, int port,
                                                                const HttpLimits& limits = {},
                                                                const HttpTls& tls = {});
  ~HttpServer();  // stop()

  int port() const;
  int num_connections() const;
  // Closes every connection (unfinished requests are cancelled) and joins. Idempotent.
  void stop();

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
