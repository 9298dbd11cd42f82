// The real scheduler over a trace, in virtual time: arrivals, plans, steps that take what the GPU
// model says, results. Two steps in flight, as with the CUDA device: plan n+1 is made while n runs.
// Nothing sleeps and nothing is random: the same options give the same numbers, wall times apart.
#pragma once

#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/schedule/fake_fleet.h"
#include "bench/schedule/metrics.h"
#include "bench/schedule/trace.h"
#include "coordinator/schedule/scheduler.h"

namespace quire::bench {

struct ReplayOptions {
  SchedulerConfig scheduler;
  GpuModel gpu;
  int num_blocks = 0;  // 0: what the GPU's memory holds
  int num_host_blocks = 0;
  int n = 1;
  int beam_width = 0;
  int tenants = 1;
  double skew = 20;      // the first tenant sends so many times the load of each other
  int verify_every = 0;  // steps; 0: never
};

class Replay {
 public:
  Replay(const ReplayOptions& options, const Trace& trace);

  // Until every request has its tokens. Internal if the scheduler stands still or goes wrong.
  absl::Status run();
  // What was seen, after run().
  nlohmann::json report() const;

 private:
  struct InFlight {
    StepResult result;
    double done_s;  // when the coordinator has it
  };

  absl::Status add_arrivals();
  absl::Status plan_steps();
  absl::Status apply_oldest();
  void take(const Gain& gain);
  void watch_gap(double gap_s);
  void sample_memory(double seconds);
  void note_admitted();
  void settle_shares(bool contended);
  int tenant_of(std::size_t request) const;
  nlohmann::json ttft_by_tenant() const;

  const ReplayOptions options_;
  const Trace& trace_;
  Scheduler scheduler_;
  FakeFleet fleet_;
  std::size_t next_arrival_ = 0;
  double now_s_ = 0, gpu_free_s_ = 0;
  std::deque<InFlight> in_flight_;

  std::vector<RequestTimes> requests_;
  std::vector<MemorySample> memory_;
  LogHistogram gaps_, plan_wall_, apply_wall_, watched_gaps_, other_gaps_;
  double output_tokens_ = 0, busy_s_ = 0, idle_with_work_s_ = 0;
  double add_wall_s_ = 0, run_wall_s_ = 0, refused_ = 0;
  std::int64_t steps_ = 0, rows_ = 0;
  int max_running_ = 0, max_waiting_ = 0;
  std::vector<int> unadmitted_;         // [tenant] requests that have not run yet
  std::vector<double> before_, share_;  // [tenant] service: when contention began; while it lasted
  bool contended_ = false;
  double contended_since_ = 0, contended_s_ = 0;
};

}  // namespace quire::bench
