// What a replay has seen, as JSON.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "bench/schedule/replay.h"

namespace quire::bench {
namespace {

nlohmann::json wall_json(const LogHistogram& seconds) {
  return {{"mean", 1e6 * seconds.mean()},
          {"p50", 1e6 * seconds.percentile(0.5)},
          {"p99", 1e6 * seconds.percentile(0.99)},
          {"max", 1e6 * seconds.max()}};
}

// The largest distance of a tenant from its equal share, as a part of that share.
double share_error(const std::vector<double>& service) {
  const double fair =
      std::accumulate(service.begin(), service.end(), 0.0) / static_cast<double>(service.size());
  double worst = 0;
  for (const double got : service) worst = std::max(worst, std::abs(got / fair - 1));
  return worst;
}

}  // namespace

nlohmann::json Replay::ttft_by_tenant() const {
  std::vector<std::vector<double>> waits(static_cast<std::size_t>(options_.tenants));
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i].first_s < 0) continue;
    waits[static_cast<std::size_t>(tenant_of(i))].push_back(requests_[i].first_s -
                                                            requests_[i].arrival_s);
  }
  nlohmann::json out;
  for (std::vector<double>& wait : waits) out.push_back(latency_json(std::move(wait)));
  return out;
}

nlohmann::json Replay::report() const {
  double first = trace_.calls.back().at_s, last = 0;
  double prompt_tokens = 0;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i].last_s < 0) continue;
    first = std::min(first, requests_[i].arrival_s);
    last = std::max(last, requests_[i].last_s);
    prompt_tokens += trace_.calls[i].prompt_tokens;
  }
  const double duration = std::max(last - first, 1e-9);
  nlohmann::json out = requests_json(requests_, duration);
  const SchedulerCounts& counts = scheduler_.counts();
  out["duration_s"] = duration;
  const double arriving = trace_.calls.back().at_s - trace_.calls.front().at_s;
  out["offered_per_s"] = arriving > 0 ? static_cast<double>(trace_.calls.size()) / arriving : 0.0;
  out["refused"] = refused_;
  out["output_tokens_per_s"] = output_tokens_ / duration;
  out["total_tokens_per_s"] = (output_tokens_ + prompt_tokens) / duration;
  out["itl_ms"] = latency_json(gaps_);
  out["steps"] = steps_;
  out["rows_per_step"] =
      static_cast<double>(rows_) / static_cast<double>(std::max<std::int64_t>(steps_, 1));
  out["gpu_busy_share"] = busy_s_ / duration;
  out["idle_with_work_s"] = idle_with_work_s_;
  out["max_running"] = max_running_;
  out["max_waiting"] = max_waiting_;
  out["preemptions"] = counts.preemptions;
  out["swapped_blocks"] = fleet_.swapped_blocks();
  out["prefix_hit_ratio"] =
      prompt_tokens > 0 ? static_cast<double>(counts.prefix_hits) / prompt_tokens : 0;
  out["ideal_hit_ratio"] = trace_.ideal_hit_ratio();
  const double cache_tokens = static_cast<double>(options_.scheduler.block_size) *
                              (scheduler_.num_blocks() + options_.num_host_blocks);
  out["lru_hit_ratio"] = trace_.lru_hit_ratio(cache_tokens);
  out["memory"] = memory_json(
      memory_, trace_.last_block_floor(options_.scheduler.block_size,
                                       options_.beam_width > 0 ? options_.beam_width : options_.n));
  if (options_.tenants > 1 && contended_s_ > 0) {
    out["fairness"] = {
        {"contended_s", contended_s_}, {"service", share_}, {"share_error", share_error(share_)}};
  }
  if (options_.tenants > 1) out["ttft_ms_by_tenant"] = ttft_by_tenant();
  if (trace_.watched >= 0) {
    const RequestTimes& watched = requests_[static_cast<std::size_t>(trace_.watched)];
    out["watched"] = {{"ttft_ms", 1e3 * (watched.first_s - watched.arrival_s)},
                      {"gaps_while_it_came_ms", latency_json(watched_gaps_)},
                      {"gaps_otherwise_ms", latency_json(other_gaps_)}};
  }
  const double in_scheduler = add_wall_s_ +
                              plan_wall_.mean() * static_cast<double>(plan_wall_.count()) +
                              apply_wall_.mean() * static_cast<double>(apply_wall_.count());
  out["wall"] = {{"run_s", run_wall_s_},
                 {"scheduler_s", in_scheduler},
                 {"add_us", 1e6 * add_wall_s_ / static_cast<double>(requests_.size())},
                 {"plan_us", wall_json(plan_wall_)},
                 {"apply_us", wall_json(apply_wall_)}};
  return out;
}

}  // namespace quire::bench
