// quire.v1.Generation over the callback API: Generate, Cancel, Models. What a call asks is checked
// by service.h, the same as over HTTP; one stream's life is in grpc_stream.h.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/time/time.h"
#include "coordinator/api/service.h"

namespace grpc {
class Service;
}

namespace quire {

class GenerationService {
 public:
  struct Options {
    // What may wait for one slow client; beyond it its call ends with RESOURCE_EXHAUSTED.
    std::size_t max_buffered_bytes = std::size_t{1} << 20;
    // The same for a client that takes nothing for so long while there is more for it.
    absl::Duration write_timeout = absl::Seconds(30);
  };
  explicit GenerationService(const Api& api);
  GenerationService(const Api& api, Options options);
  // After the gRPC server has shut down and the engine has stopped.
  ~GenerationService();

  grpc::Service* service();  // to register on the gRPC server
  // Refuses new calls; ends every open one: by itself (the engine has been stopped before) or, at
  // the deadline, by force.
  void stop(absl::Duration deadline);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
