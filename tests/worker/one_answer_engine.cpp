#include "tests/worker/one_answer_engine.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "coordinator/schedule/scheduler.h"

namespace quire::test {
namespace {

class Engine {
 public:
  Engine(RankGroup& group, const std::vector<Prompt>& requests, const Way& way)
      : group_(group), requests_(requests), way_(way), scheduler_(config(group, way)) {
    const int blocks = way.blocks > 0 ? way.blocks : group.limits().num_blocks;
    scheduler_.start_group(1, blocks, 1, way.host_blocks);
  }

  absl::StatusOr<std::vector<Output>> run_round() {
    outputs_.assign(requests_.size(), {});
    open_ = 0;
    std::size_t next = 0;
    std::mt19937_64 random(way_.seed);
    for (std::size_t ended = 0; ended < requests_.size();) {
      while (next < requests_.size() && open_ < way_.together) {
        if (way_.seed != 0 && open_ > 0 && random() % 3 == 0) break;
        add(next++);
      }
      QUIRE_ASSIGN_OR_RETURN(const int ends, step());
      ended += static_cast<std::size_t>(ends);
    }
    while (!plans_.empty()) QUIRE_RETURN_IF_ERROR(step().status());
    first_id_ += requests_.size();
    return std::move(outputs_);
  }

  // Afterwards no slot is in use.
  absl::StatusOr<Traffic> end() {
    StepPlan plan;
    plan.releases.assign(slots_.begin(), slots_.end());
    QUIRE_RETURN_IF_ERROR(group_.step(std::move(plan)).status());
    const SchedulerCounts& counts = scheduler_.counts();
    traffic_.preemptions = counts.preemptions;
    traffic_.prefix_hits = counts.prefix_hits;
    traffic_.guesses = counts.draft_tokens;
    traffic_.accepted_guesses = counts.accepted_draft_tokens;
    traffic_.loaded_blocks = counts.loaded_blocks;
    return traffic_;
  }

 private:
  static SchedulerConfig config(const RankGroup& group, const Way& way) {
    const StepLimits& limits = group.limits();
    SchedulerConfig config;
    config.max_num_seqs = limits.max_num_seqs;
    config.max_num_batched_tokens = limits.max_num_batched_tokens;
    config.block_size = limits.block_size;
    config.max_model_len = limits.max_model_len;
    config.vocab = group.rank(0).file().spec.vocab;
    config.long_prefill_token_threshold = way.chunk;
    config.prefix_caching = way.prefix_cache;
    config.num_speculative_tokens = way.guesses;
    config.prompt_lookup_min = 1;  // random text repeats no more than single tokens
    return config;
  }

  void add(std::size_t index) {
    const Prompt& prompt = requests_[index];
    NewRequest wish;
    wish.id = first_id_ + index;
    wish.prompt = prompt.ids;
    wish.params = prompt.params;
    wish.params.max_tokens = prompt.max_tokens;
    wish.params.ignore_eos = true;
    const absl::Status added = scheduler_.add(std::move(wish));
    QUIRE_CHECK(added.ok());
    ++open_;
  }

  // Plans as far ahead as may be, and runs the oldest plan; how many requests have ended by it.
  absl::StatusOr<int> step() {
    while (scheduler_.can_plan()) {
      StepPlan plan = scheduler_.plan();
      if (plan.rows.empty()) break;
      note(plan);
      plans_.push_back(std::move(plan));
    }
    if (plans_.empty()) return absl::InternalError("nothing can be planned");
    const StepPlan plan = std::move(plans_.front());
    plans_.pop_front();
    QUIRE_ASSIGN_OR_RETURN(StepResult result, group_.step(plan));
    result.epoch = plan.epoch;
    result.step = plan.step;
    result.busy_us = made_up_us(plan);
    QUIRE_ASSIGN_OR_RETURN(std::vector<Gain> gains, scheduler_.apply(std::move(result)));
    int ends = 0;
    for (Gain& gain : gains) {
      Output& output = outputs_[static_cast<std::size_t>(gain.request - first_id_)];
      output.tokens.insert(output.tokens.end(), gain.tokens.begin(), gain.tokens.end());
      std::move(gain.logprobs.begin(), gain.logprobs.end(), std::back_inserter(output.logprobs));
      if (gain.end != EndReason::kNone) ++ends;
    }
    open_ -= ends;
    return ends;
  }

  // What the scheduler decides by time is then the same in every run.
  static std::int64_t made_up_us(const StepPlan& plan) {
    std::int64_t tokens = 0;
    for (const PlanRow& row : plan.rows) tokens += row.num_tokens;
    return 2000 + 20 * tokens + static_cast<std::int64_t>(plan.loads.size());
  }

  void note(const StepPlan& plan) {
    for (const SlotId slot : plan.releases) slots_.erase(slot);
    for (const AdmitRow& row : plan.admits) slots_.insert(row.slot);
    ++traffic_.num_steps;
    traffic_.most_rows = std::max(traffic_.most_rows, static_cast<int>(plan.rows.size()));
    for (const PlanRow& row : plan.rows) {
      const int tokens = row.num_tokens - static_cast<int>(row.drafts.size());
      traffic_.longest_piece = std::max(traffic_.longest_piece, tokens);
      if (!row.samples) ++traffic_.cut_prompts;
    }
  }

  RankGroup& group_;
  const std::vector<Prompt>& requests_;
  const Way way_;
  Scheduler scheduler_;
  std::deque<StepPlan> plans_;  // made, not run
  std::set<SlotId> slots_;      // that the workers know
  std::vector<Output> outputs_;
  RequestId first_id_ = 1;
  int open_ = 0;
  Traffic traffic_;
};

}  // namespace

absl::StatusOr<Served> serve(RankGroup& group, const std::vector<Prompt>& requests,
                             const Way& way) {
  Engine engine(group, requests, way);
  Served served;
  for (int round = 0; round < way.rounds; ++round) {
    QUIRE_ASSIGN_OR_RETURN(std::vector<Output> outputs, engine.run_round());
    for (std::size_t i = 0; round > 0 && i < outputs.size(); ++i) {
      const std::string differs = difference(outputs[i], served.outputs[i]);
      if (differs.empty()) continue;
      return absl::InternalError(
          absl::StrCat(way.name, ", round ", round, ", request ", i, ": ", differs));
    }
    served.outputs = std::move(outputs);
  }
  QUIRE_ASSIGN_OR_RETURN(served.traffic, engine.end());
  return served;
}

absl::StatusOr<std::unique_ptr<RankGroup>> open_for(const std::string& model, GroupOptions options,
                                                    const Way& way) {
  options.world = way.world;
  options.threads = way.threads;
  options.num_host_blocks = way.host_blocks;
  return RankGroup::open(model, options);
}

std::string difference(const Output& got, const Output& want) {
  const std::size_t length = std::min(got.tokens.size(), want.tokens.size());
  for (std::size_t t = 0; t < length; ++t) {
    if (got.tokens[t] != want.tokens[t]) {
      return absl::StrCat("token ", t, " is ", got.tokens[t], ", not ", want.tokens[t]);
    }
    const auto &a = got.logprobs[t], &b = want.logprobs[t];
    if (a.size() != b.size()) return absl::StrCat("token ", t, " has ", a.size(), " logprobs");
    for (std::size_t k = 0; k < a.size(); ++k) {
      if (a[k].token == b[k].token && std::bit_cast<std::uint32_t>(a[k].logprob) ==
                                          std::bit_cast<std::uint32_t>(b[k].logprob)) {
        continue;
      }
      return absl::StrCat("token ", t, ", logprob ", k, " is ", a[k].logprob, " of id ", a[k].token,
                          ", not ", b[k].logprob, " of id ", b[k].token);
    }
  }
  if (got.tokens.size() == want.tokens.size()) return "";
  return absl::StrCat(got.tokens.size(), " tokens, not ", want.tokens.size());
}

}  // namespace quire::test
