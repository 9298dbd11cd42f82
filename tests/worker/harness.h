// A worker group inside the test program: every rank is a thread with its own device, weights and
// runner, joined by shared memory as in production. And a driver that plays the coordinator just
// well enough to generate.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "worker/runner/rank.h"

namespace quire::test {

using DeviceOpener = std::function<absl::StatusOr<std::unique_ptr<Device>>(const DeviceOptions&)>;

struct GroupOptions {
  int world = 1;
  std::string device = "reference";
  std::string dtype = "float32";
  std::string kv_dtype = "auto";
  int threads = 1;          // per rank
  int num_host_blocks = 0;  // of an offload store in memory; 0: there is none
  LoadFormat load_format = LoadFormat::kAuto;
  DeviceOpener open_device = quire::open_device;
  StepLimits limits{.num_blocks = 160,
                    .block_size = 16,
                    .max_num_seqs = 40,
                    .max_num_batched_tokens = 256,
                    .max_model_len = 512};
};

class RankGroup {
 public:
  RankGroup() = default;
  ~RankGroup();  // all ranks at once: they leave their collective together
  static absl::StatusOr<std::unique_ptr<RankGroup>> open(const std::string& model,
                                                         const GroupOptions& options);
  // Rank r opens models[r].
  static absl::StatusOr<std::unique_ptr<RankGroup>> open(const std::vector<std::string>& models,
                                                         const GroupOptions& options);

  // Runs `plan` as the next step on every rank at once. The result is the sampling rank's; Internal
  // when the ranks picked different tokens.
  absl::StatusOr<StepResult> step(StepPlan plan);
  // The same with many plans, each enqueued as soon as the runners have room.
  absl::StatusOr<std::vector<StepResult>> run_ahead(std::vector<StepPlan> plans);

  const Rank& rank(int r) const { return *ranks_[static_cast<std::size_t>(r)]; }
  const StepLimits& limits() const { return options_.limits; }
  int world() const { return options_.world; }

 private:
  GroupOptions options_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  StepId step_ = 0;
};

// A row of a plan for a model of one KV group.
inline PlanRow plan_row(SlotId slot, int first_position, int num_tokens, bool samples,
                        std::vector<BlockId> new_blocks = {}) {
  PlanRow row;
  row.slot = slot;
  row.first_position = first_position;
  row.num_tokens = num_tokens;
  row.samples = samples;
  row.new_blocks.push_back(std::move(new_blocks));
  return row;
}

struct Prompt {
  std::vector<TokenId> ids;
  int max_tokens = 16;
  SamplingParams params;
  int sample_index = 0;
  int num_output = 0;  // of `ids`: those at their end that were generated before
};

// Greedy, with the sampled token's logprob and the k best.
Prompt greedy(std::vector<TokenId> ids, int max_tokens, int logprobs = 5);

struct Output {
  std::vector<TokenId> tokens;
  std::vector<std::vector<TokenLogprob>> logprobs;  // per token, as RowResult has them
};

// Runs all prompts at once, each granted at most `chunk` tokens a step (0: as many as fit), and
// releases their slots. Blocks are handed out in a scattered order.
absl::StatusOr<std::vector<Output>> generate(RankGroup& group, const std::vector<Prompt>& prompts,
                                             int chunk = 0);

// The distributions (sampled token + k best) before each of `forced`, given the prompt and the
// forced tokens before it: prompt in whole, then one token per step over the same KV blocks. All
// texts run at once.
struct ForcedText {
  std::vector<TokenId> prompt;
  std::vector<TokenId> forced;
};
absl::StatusOr<std::vector<Output>> teacher_force(RankGroup& group,
                                                  const std::vector<ForcedText>& texts,
                                                  int logprobs = 20);

// The logprob of `token` in a row of results; -infinity when it is not among them.
float logprob_of(const std::vector<TokenLogprob>& row, TokenId token);

}  // namespace quire::test
