// The seeded log-normal load in rounds, a line each: the form that tests/gpu reads. People use
// `quire bench serve`; load, client and definitions are the same.
//   bench_serve --model-file M.gguf | --vocab N  [--url host:port] [--requests 24]
//               [--input N --output N] [--repeats 3] [--seed 1] [--label NAME] [--format text|json]
//   bench_serve --print-load yes --vocab N ...: sends nothing, prints each request's lengths
// --vocab takes random token ids: for servers of random weights, which have no tokenizer.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/serve/load.h"
#include "bench/serve/send.h"

namespace quire::bench {
namespace {

using Options = std::map<std::string, std::string>;

int fail(const std::string& message, int code = 1) {
  std::fprintf(stderr, "bench_serve: %s\n", message.c_str());
  return code;
}

void print(const Options& options, const std::string& label, const Summary& summary) {
  const Latencies& ms = summary.latencies;
  const double ttft[] = {percentile(ms.ttft, 0.5), percentile(ms.ttft, 0.99)};
  const double tpot[] = {percentile(ms.tpot, 0.5), percentile(ms.tpot, 0.99)};
  if (options.at("--format") == "json") {
    const nlohmann::json line = {{"bench", "serve"},
                                 {"label", label},
                                 {"requests", summary.completed},
                                 {"input", summary.input_tokens},
                                 {"output", summary.output_tokens},
                                 {"elapsed_s", summary.duration_s},
                                 {"out_tok_s", summary.output_throughput},
                                 {"ttft_p50_ms", ttft[0]},
                                 {"ttft_p99_ms", ttft[1]},
                                 {"tpot_p50_ms", tpot[0]},
                                 {"tpot_p99_ms", tpot[1]},
                                 {"gap_p99_ms", percentile(ms.itl, 0.99)}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf(
        "%-12s %3d requests  %6ld in %6ld out  %7.2f s  %8.1f out tok/s  "
        "TTFT p50 %7.1f p99 %7.1f ms  TPOT p50 %6.2f p99 %6.2f ms  gap p99 %6.1f ms\n",
        label.c_str(), summary.completed, summary.input_tokens, summary.output_tokens,
        summary.duration_s, summary.output_throughput, ttft[0], ttft[1], tpot[0], tpot[1],
        percentile(ms.itl, 0.99));
  }
  std::fflush(stdout);
}

// One round: every call on a connection and thread of its own, started together.
bool run_round(const Options& options, const std::string& label, const Endpoint& endpoint,
               const std::vector<Call>& calls, std::vector<double>* rates) {
  const Run run = send_all(endpoint, calls, std::vector<double>(calls.size(), 0), 0);
  for (const Outcome& outcome : run.outcomes) {
    if (!outcome.error.empty()) return fail("a request failed: " + outcome.error) == 0;
  }
  const Summary summary = summarize(run.outcomes, run.duration_s, Goals{});
  rates->push_back(summary.output_throughput);
  print(options, label, summary);
  return true;
}

int run(const Options& options) {
  const auto number = [&](const char* name) { return std::atoi(options.at(name).c_str()); };
  const std::string& label = options.at("--label");
  absl::StatusOr<std::vector<TokenId>> text =
      number("--vocab") > 0 ? random_tokens(std::max(number("--vocab"), 4), 1, nullptr)
                            : licence_tokens(options.at("--model-file"));
  if (!text.ok()) return fail(std::string(text.status().message()));
  LoadOptions load;
  load.requests = number("--requests");
  load.input.fixed = number("--input");
  load.output.fixed = number("--output");
  load.seed = static_cast<std::uint64_t>(std::atoll(options.at("--seed").c_str()));
  const std::vector<Call> calls = make_load(load, *text);
  if (options.at("--print-load") == "yes") {
    for (const Call& call : calls) {
      std::printf("{\"input\": %zu, \"output\": %d}\n", call.prompt.size(), call.max_tokens);
    }
    return 0;
  }
  Endpoint endpoint;
  if (absl::Status address = set_address(options.at("--url"), &endpoint); !address.ok()) {
    return fail(std::string(address.message()), 64);
  }
  const absl::StatusOr<std::string> model = first_model(endpoint);
  if (!model.ok()) return fail(std::string(model.status().message()));
  endpoint.model = *model;
  std::vector<double> warm_up, rates;
  const std::vector<Call> first(calls.begin(), calls.begin() + 1);
  if (!run_round(options, label + " (first)", endpoint, first, &warm_up)) return 1;
  for (int i = 0; i < number("--repeats"); ++i) {
    if (!run_round(options, label, endpoint, calls, &rates)) return 1;
  }
  if (options.at("--format") == "json") return 0;
  std::printf("%-12s median %.1f out tok/s (min %.1f, max %.1f) over %zu rounds of %zu requests\n",
              label.c_str(), percentile(rates, 0.5), percentile(rates, 0.0), percentile(rates, 1.0),
              rates.size(), calls.size());
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  quire::bench::Options options = {
      {"--model-file", ""}, {"--vocab", "0"},      {"--url", "127.0.0.1:8000"},
      {"--requests", "24"}, {"--input", "0"},      {"--output", "0"},
      {"--repeats", "3"},   {"--seed", "1"},       {"--label", "server"},
      {"--format", "text"}, {"--print-load", "no"}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const auto option = options.find(argv[i]);
    if (option == options.end()) {
      std::fprintf(stderr, "bench_serve: unknown option %s\n", argv[i]);
      return 64;
    }
    option->second = argv[i + 1];
  }
  if ((options.at("--model-file").empty() && options.at("--vocab") == "0") || argc % 2 == 0 ||
      std::atoi(options.at("--requests").c_str()) < 1) {
    std::fprintf(stderr,
                 "bench_serve: --model-file or --vocab is needed, every option takes a value, and "
                 "--requests is at least 1\n");
    return 64;
  }
  return quire::bench::run(options);
}
