// Everything a coordinator process is made of, in the order in which it starts and stops: model,
// text, engine, fleet, gRPC server, HTTP server. Owns them all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/config.h"

namespace quire {

// From other threads; must not block.
struct ServerEvents {
  std::function<void()> on_ready = [] {};  // whenever a worker group has become ready
  // The workers of this instance are an epoch. From the fleet, so in order with on_lost; on_ready
  // and on_progress are the engine's and may come after it.
  std::function<void(const std::string& instance, std::uint64_t epoch)> on_attached =
      [](const std::string&, std::uint64_t) {};
  // See EngineEvents: the epoch has done somebody good.
  std::function<void(const std::string& instance, std::uint64_t epoch)> on_progress =
      [](const std::string&, std::uint64_t) {};
  // The workers of this instance are to leave, or be made to: their epoch has ended.
  std::function<void(const std::string& instance, std::uint64_t epoch, const char* cause)> on_lost =
      [](const std::string&, std::uint64_t, const char*) {};
};

class Server {
 public:
  // Listens when it returns; workers may attach from then on.
  // InvalidArgument / NotFound / DataLoss for the model and options, Unavailable for an address
  // that cannot be listened on; each a sentence that says what to do.
  static absl::StatusOr<std::unique_ptr<Server>> start(const EngineConfig& config,
                                                       ServerEvents events);
  ~Server();  // stops at once

  std::string http_url() const;      // "http://127.0.0.1:8000"
  std::string grpc_address() const;  // "127.0.0.1:50051"
  // Requests are accepted: a group is ready and the engine knows it.
  bool ready() const;

  // Orderly: takes no more requests, lets those that run finish for --drain-timeout, tells the
  // streams that are left, drains the workers. Idempotent.
  void stop();
  // Any thread, also while stop() runs: nothing is waited for any more.
  void hurry();
  // No worker group will come: what waits for one is refused, and stop() waits for nothing.
  void fail();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
