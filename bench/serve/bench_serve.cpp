// Sends a seeded load to any OpenAI-compatible server, all requests at once, and prints throughput
// and latencies as `vllm bench serve` defines them. Used for Quire and its peers alike.
//   bench_serve --model-file M.gguf | --vocab N  [--url host:port] [--requests 24]
//               [--input N --output N] [--repeats 3] [--seed 1] [--label NAME] [--format text|json]
//   bench_serve --print-load yes --vocab N ...: sends nothing, prints each request's lengths
// --vocab takes random token ids: for servers of random weights, which have no tokenizer.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
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
  int vocab = 0;
  std::string label = "server";
  std::string format = "text";
  bool print_load = false;
  int repeats = 3;
};

// What a round took, for people or for programs.
struct Round {
  std::size_t requests = 0, input = 0;
  long output = 0;
  double elapsed_s = 0;
  std::vector<double> ttft_ms, tpot_ms, gaps_ms;

  double rate() const { return static_cast<double>(output) / elapsed_s; }
  void print(const Options& options) const {
    if (options.format == "json") {
      const nlohmann::json line = {{"bench", "serve"},
                                   {"label", options.label},
                                   {"requests", requests},
                                   {"input", input},
                                   {"output", output},
                                   {"elapsed_s", elapsed_s},
                                   {"out_tok_s", rate()},
                                   {"ttft_p50_ms", percentile(ttft_ms, 0.5)},
                                   {"ttft_p99_ms", percentile(ttft_ms, 0.99)},
                                   {"tpot_p50_ms", percentile(tpot_ms, 0.5)},
                                   {"tpot_p99_ms", percentile(tpot_ms, 0.99)},
                                   {"gap_p99_ms", percentile(gaps_ms, 0.99)}};
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf(
          "%-12s %3zu requests  %6zu in %6ld out  %7.2f s  %8.1f out tok/s  "
          "TTFT p50 %7.1f p99 %7.1f ms  TPOT p50 %6.2f p99 %6.2f ms  gap p99 %6.1f ms\n",
          options.label.c_str(), requests, input, output, elapsed_s, rate(),
          percentile(ttft_ms, 0.5), percentile(ttft_ms, 0.99), percentile(tpot_ms, 0.5),
          percentile(tpot_ms, 0.99), percentile(gaps_ms, 0.99));
    }
    std::fflush(stdout);
  }
};

// One round: every call on a connection and thread of its own, started together.
bool run_round(const Options& options, const std::vector<Call>& calls, std::vector<double>* rates) {
  std::vector<absl::StatusOr<Timing>> results(calls.size(), absl::UnknownError("not run"));
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    threads.emplace_back([&, i] { results[i] = complete(options.endpoint, calls[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  Round round;
  round.requests = calls.size();
  round.elapsed_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (!results[i].ok()) {
      std::fprintf(stderr, "request %zu failed: %s\n", i,
                   std::string(results[i].status().message()).c_str());
      return false;
    }
    const Timing& timing = *results[i];
    round.input += calls[i].prompt.size();
    round.output += timing.output_tokens;
    round.ttft_ms.push_back(timing.ttft_s * 1e3);
    for (const double gap : timing.chunk_gaps_s) round.gaps_ms.push_back(gap * 1e3);
    if (timing.output_tokens > 1) {
      round.tpot_ms.push_back((timing.end_s - timing.ttft_s) * 1e3 / (timing.output_tokens - 1));
    }
  }
  rates->push_back(round.rate());
  round.print(options);
  return true;
}

int run(Options options) {
  absl::StatusOr<std::vector<TokenId>> text = random_tokens(std::max(options.vocab, 4), 1);
  if (options.vocab == 0) text = licence_tokens(options.model_file);
  if (!text.ok()) {
    std::fprintf(stderr, "bench_serve: %s\n", std::string(text.status().message()).c_str());
    return 1;
  }
  const std::vector<Call> calls = make_load(options.load, *text);
  if (options.print_load) {
    for (const Call& call : calls) {
      std::printf("{\"input\": %zu, \"output\": %d}\n", call.prompt.size(), call.max_tokens);
    }
    return 0;
  }
  auto model = first_model(options.endpoint);
  if (!model.ok()) {
    std::fprintf(stderr, "bench_serve: %s\n", std::string(model.status().message()).c_str());
    return 1;
  }
  options.endpoint.model = *model;
  std::vector<double> warm_up, rates;
  Options first = options;
  first.label += " (first)";
  if (!run_round(first, {calls.begin(), calls.begin() + 1}, &warm_up)) return 1;
  for (int i = 0; i < options.repeats; ++i) {
    if (!run_round(options, calls, &rates)) return 1;
  }
  if (options.format == "json") return 0;
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
    } else if (name == "--vocab") {
      options.vocab = std::atoi(value.c_str());
    } else if (name == "--format") {
      options.format = value;
    } else if (name == "--print-load") {
      options.print_load = value == "yes";
    } else if (name == "--label") {
      options.label = value;
    } else {
      std::fprintf(stderr, "bench_serve: unknown option %s\n", name.c_str());
      return 64;
    }
  }
  if ((options.model_file.empty() && options.vocab < 4) || argc % 2 == 0) {
    std::fprintf(
        stderr, "bench_serve: --model-file or --vocab is needed, and every option takes a value\n");
    return 64;
  }
  return quire::bench::run(options);
}
