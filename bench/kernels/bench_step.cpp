// One rank's step through a whole model, without coordinator and clients: `rows` sequences of
// `context` tokens, each with its next token, and how long that takes.
//   bench_step --model FILE [--rows 64] [--context 320] [--drafts 0] [--prompt 0] [--steps 40]
//              [--draft-every 1] [--threads 2] [--kv-cache-dtype auto] [--isa auto]
// `drafts`: guesses that every so many'th row brings with its token, all of them wrong or nearly
// so. `prompt`: tokens of a prompt that are computed in the same step. Prints the median, fastest
// and slowest step.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/command_line.h"
#include "common/status.h"
#include "worker/loader/progress.h"
#include "worker/runner/rank.h"

namespace quire::bench {
namespace {

constexpr int kBlockSize = 16;
constexpr int kPromptsPerStep = 512;  // tokens, while the contexts are computed
constexpr int kWarmUp = 4;            // steps

struct Options {
  std::string model;
  std::map<std::string, int> numbers = {{"--rows", 64},       {"--context", 320}, {"--drafts", 0},
                                        {"--draft-every", 1}, {"--prompt", 0},    {"--steps", 40},
                                        {"--threads", 2}};
  DeviceOptions device;

  int operator[](const std::string& name) const { return numbers.at(name); }
  int drafts_of(int row) const {
    return row % (*this)["--draft-every"] == 0 ? (*this)["--drafts"] : 0;
  }
  int tokens_per_step() const {
    int tokens = (*this)["--rows"] + (*this)["--prompt"];
    for (int row = 0; row < (*this)["--rows"]; ++row) tokens += drafts_of(row);
    return tokens;
  }
};

absl::Status set(const std::string& name, const std::string& value, Options& options) {
  const auto number = options.numbers.find(name);
  if (name == "--model") {
    options.model = value;
  } else if (name == "--isa") {
    options.device.isa = value;
  } else if (name == "--kv-cache-dtype") {
    options.device.kv_dtype = value;
  } else if (number == options.numbers.end()) {
    return unknown_option(name);
  } else if (!absl::SimpleAtoi(value, &number->second) || number->second < 0) {
    return bad_value(name, value);
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> parse(int argc, char** argv) {
  Options options;
  options.device.kind = "cpu";
  QUIRE_RETURN_IF_ERROR(for_each_option(
      argc, argv,
      [&options](const auto& name, const auto& value) { return set(name, value, options); }));
  if (options.model.empty()) return absl::InvalidArgumentError("--model names no file.");
  if (options["--rows"] == 0 || options["--context"] < 2 || options["--steps"] == 0 ||
      options["--draft-every"] == 0) {
    return absl::InvalidArgumentError(
        "there must be rows of two tokens or more, and steps; every 0th row is none.");
  }
  options.device.num_threads = options["--threads"];
  return options;
}

class Steps {
 public:
  static absl::StatusOr<Steps> open(const Options& options) {
    Steps steps(options);
    QUIRE_ASSIGN_OR_RETURN(ModelFile file, open_model(options.model));
    steps.vocab_ = file.spec.vocab;
    QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, open_device(options.device));
    QUIRE_ASSIGN_OR_RETURN(steps.rank_, Rank::load(std::move(file), std::move(device), RankPlace{},
                                                   make_progress("none", "")));
    QUIRE_RETURN_IF_ERROR(steps.rank_->start(steps.limits(), absl::StrCat("step-", ::getpid())));
    return steps;
  }

  // The contexts of all rows, as prompts.
  absl::Status fill() {
    for (int row = 0; row < options_["--rows"]; ++row) {
      StepPlan plan;
      plan.admits.push_back(admit(row, options_["--context"]));
      while (length_[row] < options_["--context"]) {
        const int left = options_["--context"] - length_[row];
        const int tokens = std::min(kPromptsPerStep, left);
        plan.rows.push_back(grant(row, tokens, tokens == left));
        QUIRE_RETURN_IF_ERROR(run(std::move(plan)).status());
        length_[row] += tokens;
        plan = StepPlan();
      }
    }
    return absl::OkStatus();
  }

  // Milliseconds of one step.
  absl::StatusOr<double> step() {
    StepPlan plan;
    const int prompts_slot = options_["--rows"];
    if (used_.count(prompts_slot) > 0) {
      plan.releases.push_back(prompts_slot);
      free_.insert(free_.end(), used_[prompts_slot].begin(), used_[prompts_slot].end());
      used_.erase(prompts_slot);
      length_[prompts_slot] = 0;
    }
    for (int row = 0; row < options_["--rows"]; ++row) {
      const int drafts = options_.drafts_of(row);
      plan.rows.push_back(grant(row, 1 + drafts, true));
      for (int i = 0; i < drafts; ++i) plan.rows.back().drafts.push_back(token());
    }
    if (options_["--prompt"] > 0) {
      plan.admits.push_back(admit(prompts_slot, options_["--prompt"] + 1));
      plan.rows.push_back(grant(prompts_slot, options_["--prompt"], false));
    }
    const std::vector<PlanRow> rows = plan.rows;
    const auto begin = std::chrono::steady_clock::now();
    QUIRE_ASSIGN_OR_RETURN(const StepResult result, run(std::move(plan)));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    // The token and the drafts before the first wrong one stay.
    std::map<int, std::size_t> picks;
    std::map<int, bool> wrong;
    for (const RowResult& pick : result.rows) {
      if (wrong[pick.row]) continue;
      ++length_[pick.row];
      const std::vector<TokenId>& drafts = rows[static_cast<std::size_t>(pick.row)].drafts;
      const std::size_t i = picks[pick.row]++;
      wrong[pick.row] = i >= drafts.size() || drafts[i] != pick.token;
    }
    return took.count();
  }

 private:
  explicit Steps(const Options& options) : options_(options) {
    for (BlockId block = num_blocks() - 1; block >= 0; --block) free_.push_back(block);
  }

  int longest() const {
    return options_["--context"] + (options_["--steps"] + kWarmUp) * (1 + options_["--drafts"]) + 2;
  }
  int num_blocks() const {
    return (longest() / kBlockSize + 2) * options_["--rows"] + options_["--prompt"] / kBlockSize +
           2;
  }
  StepLimits limits() const {
    return {.num_blocks = num_blocks(),
            .block_size = kBlockSize,
            .max_num_seqs = options_["--rows"] * (1 + options_["--drafts"]) + 1,
            .max_num_batched_tokens = std::max(kPromptsPerStep, options_.tokens_per_step()),
            .max_model_len = std::max(longest(), options_["--prompt"] + 1)};
  }

  TokenId token() { return static_cast<TokenId>(random_() % static_cast<unsigned>(vocab_)); }

  AdmitRow admit(SlotId slot, int tokens) {
    AdmitRow row;
    row.slot = slot;
    for (int i = 0; i < tokens; ++i) row.tokens.push_back(token());
    row.num_prompt_tokens = tokens;
    row.params.temperature = 0.0f;
    return row;
  }

  PlanRow grant(SlotId slot, int tokens, bool samples) {
    PlanRow row;
    row.slot = slot;
    row.first_position = length_[slot];
    row.num_tokens = tokens;
    row.samples = samples;
    std::vector<BlockId>& own = used_[slot];
    row.new_blocks.emplace_back();
    while (static_cast<int>(own.size()) * kBlockSize < row.first_position + tokens) {
      own.push_back(free_.back());
      row.new_blocks[0].push_back(free_.back());
      free_.pop_back();
    }
    return row;
  }

  absl::StatusOr<StepResult> run(StepPlan plan) {
    plan.epoch = 1;
    plan.step = ++step_;
    return rank_->runner().run(plan);
  }

  Options options_;
  int vocab_ = 0;
  std::unique_ptr<Rank> rank_;
  std::mt19937 random_{20261130};
  StepId step_ = 0;
  std::map<int, int> length_;  // by slot: positions that are computed
  std::map<int, std::vector<BlockId>> used_;
  std::vector<BlockId> free_;
};

absl::Status run(const Options& options) {
  QUIRE_ASSIGN_OR_RETURN(Steps steps, Steps::open(options));
  QUIRE_RETURN_IF_ERROR(steps.fill());
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + options["--steps"]; ++i) {
    QUIRE_ASSIGN_OR_RETURN(const double ms, steps.step());
    if (i >= kWarmUp) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  const int tokens = options.tokens_per_step();
  std::printf("%d rows at %d, %d tokens a step: %.2f ms (%.2f to %.2f), %.0f tokens/s\n",
              options["--rows"], options["--context"], tokens, median, times.front(), times.back(),
              tokens * 1e3 / median);
  return absl::OkStatus();
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  using namespace quire::bench;
  const auto options = parse(argc, argv);
  return exit_code(options.ok() ? run(*options) : options.status());
}
