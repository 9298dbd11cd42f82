// What a replay measures: latencies of requests, memory over time, shares of tenants.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

namespace quire::bench {

// MLPerf Inference, Llama-3.1-8B, server, interactive.
inline constexpr double kGoodTtftSeconds = 0.5;
inline constexpr double kGoodTpotSeconds = 0.03;

// Counts by size, in steps of 1 %: percentiles of any number of samples in little memory.
class LogHistogram {
 public:
  void add(double value);
  std::uint64_t count() const { return count_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  double max() const { return max_; }
  double percentile(double p) const;  // p in [0, 1]; 0 without samples

 private:
  std::vector<std::uint64_t> bins_;
  std::uint64_t count_ = 0;
  double sum_ = 0, max_ = 0;
};

struct RequestTimes {
  double arrival_s = 0;
  double first_s = -1;
  double last_s = -1;    // of its last token
  double newest_s = -1;  // of the newest token of choice 0
  int tokens = 0;        // of choice 0
  int open_choices = 0;
};

// The KV cache at one moment, in tokens; weighed by how long it lasted.
struct MemorySample {
  double seconds = 0;
  double allocated = 0, filled = 0;  // as the scheduler counts: shared blocks once
  double copies = 0, limit = 0;      // CopiesUse
};

// {"p50": ..., "p90": ..., "p99": ..., "mean": ..., "max": ...}, in milliseconds.
nlohmann::json latency_json(std::vector<double> seconds);
nlohmann::json latency_json(const LogHistogram& seconds);
// TTFT, TPOT, end to end, goodput.
nlohmann::json requests_json(const std::vector<RequestTimes>& requests, double duration_s);
// Waste and sharing while at least 0.9 of the peak is allocated.
nlohmann::json memory_json(const std::vector<MemorySample>& samples, double last_block_floor);

}  // namespace quire::bench
