// bench_fleets: how many worker groups one coordinator can drive. The real loop over 1 to 64
// groups of the modelled GPU (bench/schedule/gpu_model.h) at full load, in virtual time; what the
// loop takes is measured here. The figures of GPUs are the model's, no measurement.
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "bench/scale/virtual_fleets.h"

namespace quire::bench {
namespace {

constexpr char kUsage[] = R"(bench_fleets [options]
  --groups LIST     worker groups, such as 1,2,4 (1,2,4,8,16,32,64)
  --requests N      for each fleet; 0: 6 for every slot (0)
  --trace NAME      see bench_replay; only lengths are used (sharegpt)
  --max-seqs N      rows of each group (256)
  --budget N        tokens of a step (2048)
)";

struct Arguments {
  std::vector<int> groups = {1, 2, 4, 8, 16, 32, 64};
  int requests = 0, max_seqs = 256, budget = 2048;
  std::string trace = "sharegpt";
};

bool parse(int argc, char** argv, Arguments* out) {
  const std::map<std::string, int*> integers = {
      {"--requests", &out->requests}, {"--max-seqs", &out->max_seqs}, {"--budget", &out->budget}};
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) return false;
    const std::string value = argv[i + 1];
    if (name == "--trace") {
      out->trace = value;
    } else if (name == "--groups") {
      out->groups.clear();
      for (const absl::string_view word : absl::StrSplit(value, ',')) {
        int groups = 0;
        if (!absl::SimpleAtoi(word, &groups) || groups < 1 || groups > 256) return false;
        out->groups.push_back(groups);
      }
    } else if (const auto found = integers.find(name); found == integers.end() ||
                                                       !absl::SimpleAtoi(value, found->second) ||
                                                       *found->second < 0) {
      return false;
    }
  }
  return out->max_seqs > 0 && out->budget >= out->max_seqs;
}

int run(const Arguments& arguments) {
  const auto trace = load_trace({.name = arguments.trace});
  if (!trace.ok()) {
    std::fprintf(stderr, "bench_fleets: %s\n", std::string(trace.status().message()).c_str());
    return 1;
  }
  std::printf(
      "| groups | requests | out tok/s | of so many single ones | steps/s | loop, us a step | loop "
      "busy | groups wait for plans |\n|---|---|---|---|---|---|---|---|\n");
  double single = 0;  // tok/s of one group
  int saturated = 0;
  for (const int groups : arguments.groups) {
    FleetsOptions options;
    options.num_groups = groups;
    options.num_requests =
        arguments.requests > 0 ? arguments.requests : 6 * groups * arguments.max_seqs;
    options.scheduler.max_num_seqs = arguments.max_seqs;
    options.scheduler.max_num_batched_tokens = arguments.budget;
    options.scheduler.block_size = 16;
    options.scheduler.max_model_len = 131072;
    options.scheduler.vocab = kReplayVocab;
    const auto seen = VirtualFleets(options, *trace).run();
    if (!seen.ok()) {
      std::fprintf(stderr, "bench_fleets: %s\n", std::string(seen.status().message()).c_str());
      return 1;
    }
    const double rate = static_cast<double>(seen->tokens) / seen->virtual_s;
    if (single == 0) single = rate / groups;
    const double busy = seen->loop_s / seen->virtual_s;
    const bool behind = rate < 0.9 * single * groups;
    if (saturated == 0 && behind && busy > 0.5) saturated = groups;
    std::printf("| %d | %d | %.0f | %.0f %% | %.0f | %.0f | %.1f %% | %.1f %% |\n", groups,
                options.num_requests, rate, 100 * rate / (single * groups),
                static_cast<double>(seen->steps) / seen->virtual_s,
                1e6 * seen->loop_s / static_cast<double>(seen->steps), 100 * busy,
                100 * seen->idle_s / (seen->virtual_s * groups));
    std::fflush(stdout);
  }
  if (saturated > 0) {
    std::printf("\nThe coordinator is the limit from %d groups on.\n", saturated);
  } else {
    std::printf("\nThe coordinator is not the limit up to %d groups.\n", arguments.groups.back());
  }
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  quire::bench::Arguments arguments;
  if (!quire::bench::parse(argc, argv, &arguments)) {
    std::fputs(quire::bench::kUsage, stderr);
    return 64;
  }
  return quire::bench::run(arguments);
}
