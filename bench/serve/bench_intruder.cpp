// What one long prompt does to streams that run: 32 streams decode, then a prompt of 6,000 tokens
// arrives. Prints the streams' p99 gap between tokens before it came and while it was computed, and
// its time to the first token; medians of several runs. Streams end when the prompt was answered.
// Run it against a server as it is and against one with --long-prefill-token-threshold 0 to see
// what the bound costs the prompt.
//   bench_intruder --model-file M.gguf [--url host:port] [--streams 32] [--prompt 6000]
//                  [--output 500] [--after 6] [--repeats 5] [--seed 1] [--label NAME]
//                  [--format text|json]   (json: a line for each run)
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "bench/serve/http_client.h"
#include "bench/serve/load.h"
#include "bench/serve/stats.h"

namespace quire::bench {
namespace {

using Options = std::map<std::string, std::string>;

constexpr int kStreamPrompt = 32;
// So long streams go on: the gap in which the prompt was answered ends in this time.
constexpr std::chrono::milliseconds kAfterwards(1500);

struct Run {
  double before_ms = 0, during_ms = 0, ttft_s = 0;    // p99
  double middle_before_ms = 0, middle_during_ms = 0;  // p50
};

// Gaps that lie between `begin` and `end` (of the steady clock), in milliseconds.
void collect(const Timing& timing, double begin, double end, std::vector<double>* gaps_ms) {
  double at = timing.sent_at_s + timing.ttft_s;
  for (const double gap : timing.chunk_gaps_s) {
    const double since = at;
    at += gap;
    if (since >= begin && since <= end) gaps_ms->push_back(gap * 1e3);
  }
}

absl::StatusOr<Run> run_once(const Endpoint& endpoint, const std::vector<Call>& streams,
                             const Call& intruder, double after_s) {
  std::vector<absl::StatusOr<Timing>> results(streams.size(), absl::UnknownError("not run"));
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    threads.emplace_back([&, i] { results[i] = complete(endpoint, streams[i], &stop); });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(after_s));
  const absl::StatusOr<Timing> prompt = complete(endpoint, intruder);
  std::this_thread::sleep_for(kAfterwards);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  if (!prompt.ok()) return prompt.status();
  double all_started = 0, first_ended = 1e300;
  for (const auto& result : results) {
    if (!result.ok()) return result.status();
    all_started = std::max(all_started, result->sent_at_s + result->ttft_s);
    first_ended = std::min(first_ended, result->sent_at_s + result->end_s);
  }
  const double sent = prompt->sent_at_s, answered = sent + prompt->ttft_s;
  if (all_started >= sent || first_ended <= answered) {
    return absl::FailedPreconditionError(
        "Not every stream ran all the time: raise --after or --output.");
  }
  std::vector<double> before, during;
  for (const auto& result : results) {
    collect(*result, all_started, sent, &before);
    collect(*result, sent, answered, &during);
  }
  return Run{percentile(before, 0.99), percentile(during, 0.99), prompt->ttft_s,
             percentile(before, 0.5), percentile(during, 0.5)};
}

int fail(const absl::Status& status) {
  std::fprintf(stderr, "bench_intruder: %s\n", std::string(status.message()).c_str());
  return 1;
}

void print(const Options& options, const Run& one) {
  if (options.at("--format") == "json") {
    const nlohmann::json line = {{"before_p99_ms", one.before_ms},
                                 {"during_p99_ms", one.during_ms},
                                 {"before_p50_ms", one.middle_before_ms},
                                 {"during_p50_ms", one.middle_during_ms},
                                 {"ttft_s", one.ttft_s}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf(
        "%-12s gap p99 %6.1f (p50 %5.1f) ms before, %6.1f (%5.1f) while %s tokens are computed: "
        "x%.2f (%.2f);  TTFT %.2f s\n",
        options.at("--label").c_str(), one.before_ms, one.middle_before_ms, one.during_ms,
        one.middle_during_ms, options.at("--prompt").c_str(), one.during_ms / one.before_ms,
        one.middle_during_ms / one.middle_before_ms, one.ttft_s);
  }
  std::fflush(stdout);
}

int run(const Options& options) {
  const auto number = [&](const char* name) { return std::atoi(options.at(name).c_str()); };
  Endpoint endpoint;
  if (absl::Status address = set_address(options.at("--url"), &endpoint); !address.ok()) {
    return fail(address);
  }
  const absl::StatusOr<std::vector<TokenId>> text = licence_tokens(options.at("--model-file"));
  if (!text.ok()) return fail(text.status());
  const absl::StatusOr<std::string> model = first_model(endpoint);
  if (!model.ok()) return fail(model.status());
  endpoint.model = *model;
  std::vector<double> ratios, ttfts, before, during;
  for (int i = 0; i < number("--repeats"); ++i) {
    LoadOptions load;
    load.requests = number("--streams");
    load.seed = static_cast<std::uint64_t>(number("--seed") + 2 * i);  // nothing is cached
    load.input.fixed = kStreamPrompt;
    load.output.fixed = number("--output");
    const std::vector<Call> streams = make_load(load, *text);
    load.requests = 1;
    load.seed += 1;
    load.input.fixed = number("--prompt");
    load.output.fixed = 1;
    Call intruder = make_load(load, *text).front();
    intruder.prompt.front() = 100 + i;
    const absl::StatusOr<Run> one =
        run_once(endpoint, streams, intruder, std::atof(options.at("--after").c_str()));
    if (!one.ok()) return fail(one.status());
    print(options, *one);
    ratios.push_back(one->during_ms / one->before_ms);
    ttfts.push_back(one->ttft_s);
    before.push_back(one->before_ms);
    during.push_back(one->during_ms);
  }
  if (options.at("--format") == "json") return 0;
  std::printf("%-12s median of %d: gap p99 %.1f -> %.1f ms, x%.2f;  TTFT %.2f s\n",
              options.at("--label").c_str(), number("--repeats"), percentile(before, 0.5),
              percentile(during, 0.5), percentile(ratios, 0.5), percentile(ttfts, 0.5));
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  quire::bench::Options options = {{"--model-file", ""},  {"--url", "127.0.0.1:8000"},
                                   {"--streams", "32"},   {"--prompt", "6000"},
                                   {"--output", "500"},   {"--after", "6"},
                                   {"--repeats", "5"},    {"--seed", "1"},
                                   {"--label", "server"}, {"--format", "text"}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const auto option = options.find(argv[i]);
    if (option == options.end()) {
      std::fprintf(stderr, "bench_intruder: unknown option %s\n", argv[i]);
      return 64;
    }
    option->second = argv[i + 1];
  }
  if (options.at("--model-file").empty() || argc % 2 == 0) {
    std::fprintf(stderr,
                 "bench_intruder: --model-file is needed, and every option takes a value\n");
    return 64;
  }
  return quire::bench::run(options);
}
