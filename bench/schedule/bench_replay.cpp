// bench_replay: replays a trace through the real scheduler against a modelled GPU in virtual time.
// Options and what the numbers mean: bench/README.md.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/schedule/replay.h"
#include "common/status.h"

namespace quire::bench {
namespace {

constexpr char kUsage[] = R"(bench_replay --trace NAME [options]
  --trace NAME      azure-conv, azure-code, mooncake, mooncake-synthetic, vidur, a path of such a
                    file, sharegpt, uniform:IN:OUT, intruder:TOKENS
  --requests N      the first N (made-up traces: 10000)
  --scale F         times the recorded rate of arrivals (1)
  --rate R          requests a second, Poisson, instead of recorded arrivals
  --seed N          of what is made up (1)
  --policy P        fcfs, priority, spf, lpm, fair (fcfs; fair with several tenants)
  --threshold N     tokens of one prompt per step: -1 adaptive, 0 no limit (-1)
  --no-prefix-caching 1
  --offload-blocks N  host memory for so many blocks (0)
  --n N, --beam W   choices per request, beam width (1, 0)
  --tenants K       the first sends --skew times (20) the load of each other
  --max-seqs N, --budget N, --blocks N   rows and tokens per step, KV blocks (512, 2048, the GPU's)
  --verify N        check the scheduler's invariants every N steps (0)
  --label TEXT, --json FILE
)";

const std::map<std::string, Policy>& policies() {
  static const std::map<std::string, Policy> names = {{"fcfs", Policy::kFcfs},
                                                      {"priority", Policy::kPriority},
                                                      {"spf", Policy::kSpf},
                                                      {"lpm", Policy::kLpm},
                                                      {"fair", Policy::kFair}};
  return names;
}

struct Arguments {
  TraceOptions trace;
  ReplayOptions replay;
  std::string policy, label, json;
};

absl::Status parse_number(const std::string& name, const std::string& value, Arguments* out) {
  ReplayOptions& replay = out->replay;
  const std::map<std::string, int*> integers = {
      {"--requests", &out->trace.requests},
      {"--threshold", &replay.scheduler.long_prefill_token_threshold},
      {"--offload-blocks", &replay.num_host_blocks},
      {"--n", &replay.n},
      {"--beam", &replay.beam_width},
      {"--tenants", &replay.tenants},
      {"--max-seqs", &replay.scheduler.max_num_seqs},
      {"--budget", &replay.scheduler.max_num_batched_tokens},
      {"--blocks", &replay.num_blocks},
      {"--verify", &replay.verify_every},
  };
  const std::map<std::string, double*> reals = {
      {"--scale", &out->trace.scale}, {"--rate", &out->trace.rate}, {"--skew", &replay.skew}};
  bool good = false;
  if (const auto integer = integers.find(name); integer != integers.end()) {
    good = absl::SimpleAtoi(value, integer->second);
  } else if (const auto real = reals.find(name); real != reals.end()) {
    good = absl::SimpleAtod(value, real->second) && *real->second > 0;
  } else if (name == "--seed") {
    good = absl::SimpleAtoi(value, &out->trace.seed);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("There is no option ", name, "."));
  }
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " cannot be '", value, "'."));
}

absl::StatusOr<Arguments> parse(int argc, char** argv) {
  Arguments out;
  SchedulerConfig& scheduler = out.replay.scheduler;
  scheduler.max_num_seqs = 512;
  scheduler.max_num_batched_tokens = 2048;
  scheduler.max_model_len = 131072;
  scheduler.vocab = kReplayVocab;
  if (argc % 2 == 0) return absl::InvalidArgumentError("Every option takes a value.");
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--trace") {
      out.trace.name = value;
    } else if (name == "--policy") {
      out.policy = value;
    } else if (name == "--label") {
      out.label = value;
    } else if (name == "--json") {
      out.json = value;
    } else if (name == "--no-prefix-caching") {
      scheduler.prefix_caching = value == "0";
    } else {
      QUIRE_RETURN_IF_ERROR(parse_number(name, value, &out));
    }
  }
  if (out.policy.empty()) out.policy = out.replay.tenants > 1 ? "fair" : "fcfs";
  const auto policy = policies().find(out.policy);
  if (policy == policies().end()) {
    return absl::InvalidArgumentError(absl::StrCat("--policy cannot be '", out.policy, "'."));
  }
  scheduler.policy = policy->second;
  if (out.replay.tenants < 1) return absl::InvalidArgumentError("--tenants is at least 1.");
  scheduler.tenant_weights.assign(static_cast<std::size_t>(out.replay.tenants), 1.0);
  out.trace.max_tokens = scheduler.max_model_len;
  return out;
}

nlohmann::json describe(const Arguments& arguments, const Trace& trace) {
  const SchedulerConfig& scheduler = arguments.replay.scheduler;
  nlohmann::json sources;
  for (const auto& [what, why] : arguments.replay.gpu.sources()) sources[what] = why;
  return {{"label", arguments.label},
          {"trace", arguments.trace.name},
          {"requests", trace.calls.size()},
          {"mean_prompt", trace.prompt_tokens() / static_cast<double>(trace.calls.size())},
          {"mean_output", trace.output_tokens() / static_cast<double>(trace.calls.size())},
          {"scale", arguments.trace.scale},
          {"rate", arguments.trace.rate},
          {"seed", arguments.trace.seed},
          {"policy", arguments.policy},
          {"threshold", scheduler.long_prefill_token_threshold},
          {"prefix_caching", scheduler.prefix_caching},
          {"offload_blocks", arguments.replay.num_host_blocks},
          {"n", arguments.replay.n},
          {"beam", arguments.replay.beam_width},
          {"tenants", arguments.replay.tenants},
          {"skew", arguments.replay.skew},
          {"max_num_seqs", scheduler.max_num_seqs},
          {"max_num_batched_tokens", scheduler.max_num_batched_tokens},
          {"blocks", arguments.replay.num_blocks > 0
                         ? arguments.replay.num_blocks
                         : arguments.replay.gpu.num_blocks(scheduler.block_size)},
          {"gpu_model", sources}};
}

int main_with_arguments(int argc, char** argv) {
  const absl::StatusOr<Arguments> arguments = parse(argc, argv);
  if (!arguments.ok()) {
    std::fprintf(stderr, "bench_replay: %s\n%s", std::string(arguments.status().message()).c_str(),
                 kUsage);
    return 64;
  }
  const absl::StatusOr<Trace> trace = load_trace(arguments->trace);
  if (!trace.ok()) {
    std::fprintf(stderr, "bench_replay: %s\n", std::string(trace.status().message()).c_str());
    return 1;
  }
  Replay replay(arguments->replay, *trace);
  const absl::Status ran = replay.run();
  nlohmann::json out = {{"options", describe(*arguments, *trace)}, {"seen", replay.report()}};
  if (!ran.ok()) out["error"] = std::string(ran.message());
  std::printf("%s\n", out.dump(2).c_str());
  if (!arguments->json.empty()) std::ofstream(arguments->json) << out.dump(2) << "\n";
  if (ran.ok()) return 0;
  std::fprintf(stderr, "bench_replay: %s\n", std::string(ran.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::main_with_arguments(argc, argv);
}
