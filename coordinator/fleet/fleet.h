// The worker groups as the coordinator sees them: the Attach streams, the epochs, who has confirmed
// what. Issues an epoch only when one instance has presented every rank exactly once and a seat is
// free; refuses or parks others by name. Any stream's failure ends its epoch at once.
//
// groups.h holds the rules, worker_link.h one stream; this joins them under one lock and keeps
// time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/config.h"
#include "coordinator/engine/engine.h"

namespace grpc {
class Service;
}

namespace quire {

struct EndedEpoch {
  EpochId epoch = 0;
  std::string instance;  // of its ranks
  EndCause cause = EndCause::kRankGone;
};

// Called in order, one at a time, with the fleet's lock held: they only leave a message and never
// call back into the fleet.
struct FleetEvents {
  std::function<void(const GroupReady&)> on_ready;
  std::function<void(StepResult)> on_result;
  std::function<void(EpochId, EndCause, const std::string&)> on_lost;
  // Of every epoch, also one that never became ready; before on_lost. Its ranks should leave now.
  std::function<void(const EndedEpoch&)> on_ended = [](const EndedEpoch&) {};
};

struct FleetOptions {
  std::string build;   // what a worker's Hello must say
  std::string secret;  // empty: workers need none
  // Groups that may serve at once; others stand by. One: of --tensor-parallel-size ranks. More:
  // each may have any number.
  int num_seats = 1;
  absl::Duration heartbeat = absl::Milliseconds(250);
  absl::Duration lease = absl::Seconds(5);
  absl::Duration step_deadline = absl::Minutes(5);
  EpochId last_epoch = 0;  // of an earlier coordinator, where it is known: epochs begin above it
  // The id under which an earlier coordinator noted what lies in the offload stores; 0: none.
  std::uint64_t known_saved_prefixes = 0;
};

class Fleet final : public GroupPort {
 public:
  // `model_hash` is what every rank must present. `config.max_model_len` is resolved, not 0.
  Fleet(const EngineConfig& config, std::uint64_t model_hash, FleetEvents events,
        FleetOptions options);
  // After the gRPC server has shut down.
  ~Fleet() override;

  grpc::Service* service();  // quire.v1.Fleet, to register on the coordinator's gRPC server
  void send(const StepPlan& plan) override;
  void end_epoch(EpochId epoch, EndCause cause, const std::string& why) override;
  // Drain to every rank, then closes the streams; returns when all are closed or after the
  // deadline (those left are then cancelled). No event comes after the call has begun. The ranks of
  // a ready epoch note `saved_prefixes` (0: nothing) with what then lies in their offload stores.
  void shutdown(absl::Duration deadline, std::uint64_t saved_prefixes);
  std::string describe() const;         // "epoch 3: 2 ranks on host0" for logs
  std::uint64_t stale_dropped() const;  // messages of past epochs

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
