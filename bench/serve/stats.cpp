#include "bench/serve/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace quire::bench {
namespace {

// Fills the peaks: seconds are counted from the first request's.
void find_peaks(const std::vector<Outcome>& outcomes, Summary* summary) {
  double begin = 1e300, end = 0;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.error.empty()) continue;
    begin = std::min(begin, outcome.timing.sent_at_s);
    end = std::max(end, outcome.timing.sent_at_s + outcome.timing.end_s);
  }
  if (end <= begin) return;
  const auto second = [&](double at) {
    return static_cast<std::size_t>(std::max(0.0, at - begin));
  };
  std::vector<double> chunks(second(end) + 1, 0);
  std::vector<int> running(chunks.size(), 0);
  for (const Outcome& outcome : outcomes) {
    if (!outcome.error.empty()) continue;
    const Timing& timing = outcome.timing;
    const std::size_t last = second(timing.sent_at_s + timing.end_s);
    for (std::size_t s = second(timing.sent_at_s); s <= last; ++s) ++running[s];
    double at = timing.sent_at_s + timing.ttft_s;
    chunks[std::min(second(at), last)] += 1;
    for (const double gap : timing.chunk_gaps_s) chunks[std::min(second(at += gap), last)] += 1;
  }
  summary->peak_output = *std::max_element(chunks.begin(), chunks.end());
  summary->peak_concurrent = *std::max_element(running.begin(), running.end());
}

}  // namespace

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = std::clamp(p, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const std::size_t low = static_cast<std::size_t>(place);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (values[high] - values[low]) * (place - static_cast<double>(low));
}

Spread spread_of(const std::vector<double>& values, const std::vector<double>& percents) {
  Spread spread;
  for (const double percent : percents) {
    spread.percentiles.emplace_back(percent, percentile(values, percent / 100));
  }
  if (values.empty()) return spread;
  const double count = static_cast<double>(values.size());
  spread.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  spread.median = percentile(values, 0.5);
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.std = std::sqrt(squares / count);
  return spread;
}

double tpot_ms(const Timing& timing) {
  if (timing.output_tokens <= 1) return 0;
  return (timing.end_s - timing.ttft_s) * 1e3 / (timing.output_tokens - 1);
}

bool meets(const Timing& timing, const Goals& goals) {
  return (goals.ttft_ms <= 0 || timing.ttft_s * 1e3 <= goals.ttft_ms) &&
         (goals.tpot_ms <= 0 || tpot_ms(timing) <= goals.tpot_ms) &&
         (goals.e2el_ms <= 0 || timing.end_s * 1e3 <= goals.e2el_ms);
}

Summary summarize(const std::vector<Outcome>& outcomes, double duration_s, const Goals& goals) {
  Summary summary;
  summary.duration_s = duration_s;
  std::vector<double> queued_ms;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.error.empty()) {
      ++summary.failed;
      continue;
    }
    const Timing& timing = outcome.timing;
    ++summary.completed;
    summary.good += meets(timing, goals) ? 1 : 0;
    summary.input_tokens += outcome.input_tokens;
    summary.output_tokens += timing.output_tokens;
    summary.latencies.ttft.push_back(timing.ttft_s * 1e3);
    summary.latencies.e2el.push_back(timing.end_s * 1e3);
    if (timing.output_tokens > 1) summary.latencies.tpot.push_back(tpot_ms(timing));
    for (const double gap : timing.chunk_gaps_s) summary.latencies.itl.push_back(gap * 1e3);
    queued_ms.push_back(outcome.queued_s * 1e3);
  }
  summary.median_queued_ms = percentile(queued_ms, 0.5);
  if (duration_s > 0) {
    const auto a_second = [&](long count) { return static_cast<double>(count) / duration_s; };
    summary.request_throughput = a_second(summary.completed);
    summary.goodput = a_second(summary.good);
    summary.output_throughput = a_second(summary.output_tokens);
    summary.total_throughput = a_second(summary.input_tokens + summary.output_tokens);
  }
  find_peaks(outcomes, &summary);
  return summary;
}

}  // namespace quire::bench
