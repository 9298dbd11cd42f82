// Everything a coordinator process is made of, in the order in which it starts and stops: model,
// text, engine, fleet, gRPC server, HTTP server. Owns them all.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/config.h"

namespace quire {

class Server {
 public:
  // Listens when it returns; workers may attach from then on. `on_ready` is called, from another
  // thread and without blocking it, whenever a worker group has become ready.
  // InvalidArgument / NotFound / DataLoss for the model and options, Unavailable for an address
  // that cannot be listened on; each a sentence that says what to do.
  static absl::StatusOr<std::unique_ptr<Server>> start(const EngineConfig& config,
                                                       std::function<void()> on_ready);
  ~Server();

  std::string http_url() const;      // "http://127.0.0.1:8000"
  std::string grpc_address() const;  // "127.0.0.1:50051"
  // Requests are accepted: a group is ready and the engine knows it.
  bool ready() const;

  // Orderly: every stream is told, workers are drained. Bounded by a few seconds. Idempotent.
  void stop();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
