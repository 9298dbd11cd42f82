// Sends a seeded load to any OpenAI-compatible server, all requests at once, and prints throughput
// and latencies as `vllm bench serve` defines them. Used for Quire and its peers alike.
//   bench_serve --model-file M.gguf [--url host:port] [--requests 24] [--input N --output N]
//               [--repeats 3] [--seed 1] [--label NAME]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_split.h"
#include "bench/serve/http_client.h"
#include "bench/serve/load.h"

namespace quire::bench {
namespace {

struct Options {
  Endpoint endpoint;
  LoadOptions load;
  std::string model_file;
  std::string label = "server";
  int repeats = 3;
};

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<std::size_t>(p * static_cast<double>(values.size())))];
}

// One round: every call on a connection and thread of its own, started together.
bool run_round(const Options& options, const std::vector<Call>& calls, std::vector<double>* rates) {
  std::vector<absl::StatusOr<Timing>> results(calls.size(), absl::UnknownError("not run"));
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    threads.emplace_back([&, i] { results[i] = complete(options.endpoint, calls[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  const double elapsed =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  std::size_t input = 0;
  long output = 0;
  std::vector<double> ttft, tpot, gaps;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (!results[i].ok()) {
      std::fprintf(stderr, "request %zu failed: %s\n", i,
                   std::string(results[i].status().message()).c_str());
      return false;
    }
    const Timing& timing = *results[i];
    input += calls[i].prompt.size();
    output += timing.output_tokens;
    ttft.push_back(timing.ttft_s * 1e3);
    gaps.insert(gaps.end(), timing.chunk_gaps_s.begin(), timing.chunk_gaps_s.end());
    if (timing.output_tokens > 1) {
      tpot.push_back((timing.end_s - timing.ttft_s) * 1e3 / (timing.output_tokens - 1));
    }
  }
  const double rate = static_cast<double>(output) / elapsed;
  rates->push_back(rate);
  std::printf(
      "%-12s %3zu requests  %6zu in %6ld out  %7.2f s  %8.1f out tok/s  "
      "TTFT p50 %7.1f p99 %7.1f ms  TPOT p50 %6.2f p99 %6.2f ms  gap p99 %6.1f ms\n",
      options.label.c_str(), calls.size(), input, output, elapsed, rate, percentile(ttft, 0.5),
      percentile(ttft, 0.99), percentile(tpot, 0.5), percentile(tpot, 0.99),
      percentile(gaps, 0.99) * 1e3);
  std::fflush(stdout);
  return true;
}

int run(Options options) {
  auto text = licence_tokens(options.model_file);
  if (!text.ok()) {
    std::fprintf(stderr, "bench_serve: %s\n", std::string(text.status().message()).c_str());
    return 1;
  }
  auto model = first_model(options.endpoint);
  if (!model.ok()) {
    std::fprintf(stderr, "bench_serve: %s\n", std::string(model.status().message()).c_str());
    return 1;
  }
  options.endpoint.model = *model;
  const std::vector<Call> calls = make_load(options.load, *text);
  std::vector<double> warm_up, rates;
  if (!run_round(options, {calls.begin(), calls.begin() + 1}, &warm_up)) return 1;
  for (int i = 0; i < options.repeats; ++i) {
    if (!run_round(options, calls, &rates)) return 1;
  }
  std::printf("%-12s median %.1f out tok/s (min %.1f, max %.1f) over %d rounds of %zu requests\n",
              options.label.c_str(), percentile(rates, 0.5), percentile(rates, 0.0),
              percentile(rates, 0.999), options.repeats, calls.size());
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  quire::bench::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--model-file") {
      options.model_file = value;
    } else if (name == "--url") {
      const std::vector<std::string> parts = absl::StrSplit(value, ':');
      options.endpoint.host = parts[0];
      if (parts.size() > 1) options.endpoint.port = parts[1];
    } else if (name == "--requests") {
      options.load.requests = std::atoi(value.c_str());
    } else if (name == "--input") {
      options.load.fixed_input = std::atoi(value.c_str());
    } else if (name == "--output") {
      options.load.fixed_output = std::atoi(value.c_str());
    } else if (name == "--repeats") {
      options.repeats = std::atoi(value.c_str());
    } else if (name == "--seed") {
      options.load.seed = static_cast<std::uint64_t>(std::atoll(value.c_str()));
    } else if (name == "--label") {
      options.label = value;
    } else {
      std::fprintf(stderr, "bench_serve: unknown option %s\n", name.c_str());
      return 64;
    }
  }
  if (options.model_file.empty() || argc % 2 == 0) {
    std::fprintf(stderr, "bench_serve: --model-file is needed, and every option takes a value\n");
    return 64;
  }
  return quire::bench::run(options);
}
