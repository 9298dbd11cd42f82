#include "bench/schedule/metrics.h"

#include <algorithm>
#include <cmath>

namespace quire::bench {
namespace {

constexpr double kSmallest = 1e-7;       // seconds
constexpr double kLogStep = 0.00995033;  // ln 1.01

}  // namespace

void LogHistogram::add(double value) {
  const double steps = std::log(std::max(value, kSmallest) / kSmallest) / kLogStep;
  const auto bin = static_cast<std::size_t>(steps);
  if (bin >= bins_.size()) bins_.resize(bin + 1);
  ++bins_[bin];
  ++count_;
  sum_ += value;
  max_ = std::max(max_, value);
}

double LogHistogram::percentile(double p) const {
  const double wanted = p * static_cast<double>(count_);
  double seen = 0;
  for (std::size_t bin = 0; bin < bins_.size(); ++bin) {
    seen += static_cast<double>(bins_[bin]);
    if (seen >= wanted && seen > 0) {
      return kSmallest * std::exp((static_cast<double>(bin) + 0.5) * kLogStep);
    }
  }
  return 0;
}

nlohmann::json latency_json(std::vector<double> seconds) {
  if (seconds.empty()) return nullptr;
  std::sort(seconds.begin(), seconds.end());
  double sum = 0;
  for (const double value : seconds) sum += value;
  const auto at = [&](double p) {
    const double last = static_cast<double>(seconds.size() - 1);
    return 1e3 * seconds[static_cast<std::size_t>(std::ceil(p * last))];
  };
  return {{"p50", at(0.5)},
          {"p90", at(0.9)},
          {"p99", at(0.99)},
          {"mean", 1e3 * sum / static_cast<double>(seconds.size())},
          {"max", 1e3 * seconds.back()}};
}

nlohmann::json latency_json(const LogHistogram& seconds) {
  if (seconds.count() == 0) return nullptr;
  return {{"p50", 1e3 * seconds.percentile(0.5)},
          {"p90", 1e3 * seconds.percentile(0.9)},
          {"p99", 1e3 * seconds.percentile(0.99)},
          {"mean", 1e3 * seconds.mean()},
          {"max", 1e3 * seconds.max()}};
}

nlohmann::json requests_json(const std::vector<RequestTimes>& requests, double duration_s) {
  std::vector<double> ttft, tpot, e2e;
  double finished = 0, good = 0;
  for (const RequestTimes& request : requests) {
    if (request.last_s < 0 || request.open_choices > 0) continue;
    finished += 1;
    const double wait = request.first_s - request.arrival_s;
    ttft.push_back(wait);
    e2e.push_back(request.last_s - request.arrival_s);
    double pace = 0;
    if (request.tokens > 1) {
      pace = (request.newest_s - request.first_s) / (request.tokens - 1);
      tpot.push_back(pace);
    }
    good += wait <= kGoodTtftSeconds && pace <= kGoodTpotSeconds ? 1 : 0;
  }
  return {{"finished", finished},
          {"requests_per_s", finished / duration_s},
          {"goodput_per_s", good / duration_s},
          {"good_share", finished > 0 ? good / finished : 0},
          {"ttft_ms", latency_json(std::move(ttft))},
          {"tpot_ms", latency_json(std::move(tpot))},
          {"e2e_ms", latency_json(std::move(e2e))}};
}

nlohmann::json memory_json(const std::vector<MemorySample>& samples, double last_block_floor) {
  double peak = 0, peak_copies = 0, peak_limit = 0;
  for (const MemorySample& sample : samples) {
    peak = std::max(peak, sample.allocated);
    peak_copies = std::max(peak_copies, sample.copies);
    peak_limit = std::max(peak_limit, sample.limit);
  }
  MemorySample sum;
  for (const MemorySample& sample : samples) {
    if (sample.allocated < 0.9 * peak) continue;
    sum.seconds += sample.seconds;
    sum.allocated += sample.allocated * sample.seconds;
    sum.filled += sample.filled * sample.seconds;
    sum.copies += sample.copies * sample.seconds;
    sum.limit += sample.limit * sample.seconds;
  }
  if (sum.allocated == 0) return nullptr;
  const double waste = 1 - sum.filled / sum.allocated;
  return {{"full_load_s", sum.seconds},
          {"peak_allocated_tokens", peak},
          {"peak_copies_tokens", peak_copies},
          {"peak_limit_tokens", peak_limit},
          {"waste", waste},
          {"last_block_floor", last_block_floor},
          {"waste_over_floor", last_block_floor > 0 ? waste / last_block_floor : 0},
          {"saved_at_peak", 1 - peak / peak_copies},
          {"saved_against_copies", 1 - sum.allocated / sum.copies},
          {"most_that_prompts_save", 1 - sum.limit / sum.copies}};
}

}  // namespace quire::bench
