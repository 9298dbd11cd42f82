// The worker group as the coordinator sees it: the Attach streams, the epoch, who has confirmed
// what. Issues an epoch only when one instance has presented every rank exactly once; refuses or
// parks others by name. Any stream's failure ends the epoch at once.
#pragma once

#include <memory>
#include <string>

#include "common/config.h"
#include "coordinator/engine/engine.h"

namespace grpc {
class Service;
}

namespace quire {

class Fleet final : public GroupPort {
 public:
  // `model_hash` is what every rank must present.
  Fleet(const EngineConfig& config, std::uint64_t model_hash, Engine* engine);
  ~Fleet() override;

  grpc::Service* service();  // quire.v1.Fleet, to register on the coordinator's gRPC server
  void send(const StepPlan& plan) override;
  void end_epoch(const std::string& why) override;
  // Drain to every rank, then closes the streams; returns when all are closed or after the
  // deadline.
  void shutdown(absl::Duration deadline);
  std::string describe() const;  // "epoch 3: 2 ranks on host0" for logs and metrics

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
