#include "bench/serve/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::bench {
namespace {

struct Metric {
  const char* name;
  const char* title;
  const std::vector<double> Latencies::*values;
};

constexpr Metric kMetrics[] = {
    {"ttft", "time to first token (TTFT)", &Latencies::ttft},
    {"tpot", "time per output token (TPOT)", &Latencies::tpot},
    {"itl", "inter-token latency (ITL)", &Latencies::itl},
    {"e2el", "end-to-end latency (E2EL)", &Latencies::e2el},
};

bool wanted(const ServeOptions& options, const char* name) {
  return std::count(options.percentile_metrics.begin(), options.percentile_metrics.end(), name) > 0;
}

// 99 -> "99", 99.9 -> "99.9"
std::string percent_name(double percent) {
  return absl::StrFormat("%g", percent);
}

// JSON has no infinity.
nlohmann::json rate_of(const ServeOptions& options) {
  if (std::isinf(options.request_rate)) return "inf";
  return options.request_rate;
}

void add_latencies(const ServeOptions& options, const Summary& summary, nlohmann::json* out) {
  for (const Metric& metric : kMetrics) {
    if (!wanted(options, metric.name)) continue;
    const Spread spread = spread_of(summary.latencies.*metric.values, options.percents);
    const auto key = [&](const std::string& what) {
      return absl::StrCat(what, "_", metric.name, "_ms");
    };
    (*out)[key("mean")] = spread.mean;
    (*out)[key("median")] = spread.median;
    (*out)[key("std")] = spread.std;
    for (const auto& [percent, value] : spread.percentiles) {
      (*out)[key(absl::StrCat("p", percent_name(percent)))] = value;
    }
  }
}

void add_details(const Run& run, nlohmann::json* out) {
  for (const Outcome& outcome : run.outcomes) {
    (*out)["input_lens"].push_back(outcome.input_tokens);
    (*out)["output_lens"].push_back(outcome.timing.output_tokens);
    (*out)["ttfts"].push_back(outcome.timing.ttft_s);
    (*out)["itls"].push_back(outcome.timing.chunk_gaps_s);
    (*out)["latencies"].push_back(outcome.timing.end_s);
    (*out)["start_times"].push_back(outcome.timing.sent_at_s);
    (*out)["queue_times"].push_back(outcome.queued_s);
    (*out)["errors"].push_back(outcome.error);
  }
}

}  // namespace

std::string text_report(const ServeOptions& options, const Summary& summary) {
  std::string out;
  const auto count = [&](const char* name, long value) {
    absl::StrAppend(&out, absl::StrFormat("%-36s %12d\n", name, value));
  };
  const auto number = [&](const char* name, double value) {
    absl::StrAppend(&out, absl::StrFormat("%-36s %12.2f\n", name, value));
  };
  if (!options.label.empty()) absl::StrAppend(&out, "== ", options.label, "\n");
  count("successful requests", summary.completed);
  count("failed requests", summary.failed);
  number("duration (s)", summary.duration_s);
  count("input tokens", summary.input_tokens);
  count("output tokens", summary.output_tokens);
  number("request throughput (req/s)", summary.request_throughput);
  if (options.goals.any()) number("request goodput (req/s)", summary.goodput);
  number("output token throughput (tok/s)", summary.output_throughput);
  number("total token throughput (tok/s)", summary.total_throughput);
  number("peak output throughput (chunks/s)", summary.peak_output);
  count("peak concurrent requests", summary.peak_concurrent);
  if (options.max_concurrency > 0) number("median client queue (ms)", summary.median_queued_ms);
  absl::StrAppend(&out, absl::StrFormat("\n%-30s %10s %10s %10s", "ms", "mean", "median", "std"));
  for (const double percent : options.percents) {
    absl::StrAppend(&out, absl::StrFormat(" %10s", absl::StrCat("p", percent_name(percent))));
  }
  absl::StrAppend(&out, "\n");
  for (const Metric& metric : kMetrics) {
    if (!wanted(options, metric.name)) continue;
    const Spread spread = spread_of(summary.latencies.*metric.values, options.percents);
    absl::StrAppend(&out, absl::StrFormat("%-30s %10.2f %10.2f %10.2f", metric.title, spread.mean,
                                          spread.median, spread.std));
    for (const auto& [percent, value] : spread.percentiles) {
      absl::StrAppend(&out, absl::StrFormat(" %10.2f", value));
    }
    absl::StrAppend(&out, "\n");
  }
  return out;
}

nlohmann::json json_report(const ServeOptions& options, const Summary& summary, const Run& run,
                           const std::string& date) {
  nlohmann::json out = {{"date", date},
                        {"backend", options.endpoint.chat ? "openai-chat" : "openai"},
                        {"label", options.label},
                        {"model_id", options.endpoint.model},
                        {"tokenizer_id", options.tokenizer},
                        {"num_prompts", options.load.requests},
                        {"seed", options.load.seed},
                        {"request_rate", rate_of(options)},
                        {"burstiness", options.burstiness},
                        {"max_concurrency", nullptr},
                        {"duration", summary.duration_s},
                        {"completed", summary.completed},
                        {"failed", summary.failed},
                        {"total_input_tokens", summary.input_tokens},
                        {"total_output_tokens", summary.output_tokens},
                        {"request_throughput", summary.request_throughput},
                        {"request_goodput", nullptr},
                        {"output_throughput", summary.output_throughput},
                        {"total_token_throughput", summary.total_throughput},
                        {"max_output_tokens_per_s", summary.peak_output},
                        {"max_concurrent_requests", summary.peak_concurrent},
                        {"median_client_queue_time_ms", summary.median_queued_ms}};
  if (options.max_concurrency > 0) out["max_concurrency"] = options.max_concurrency;
  if (options.goals.any()) out["request_goodput"] = summary.goodput;
  for (const auto& [key, value] : options.metadata) out[key] = value;
  add_latencies(options, summary, &out);
  if (options.save_detailed) add_details(run, &out);
  return out;
}

std::string failure_report(const Run& run) {
  std::map<std::string, int> reasons;
  for (const Outcome& outcome : run.outcomes) {
    if (!outcome.error.empty()) ++reasons[outcome.error];
  }
  std::string out;
  for (const auto& [reason, count] : reasons) {
    absl::StrAppend(&out, count, count == 1 ? " request failed: " : " requests failed: ", reason,
                    "\n");
  }
  return out;
}

}  // namespace quire::bench
