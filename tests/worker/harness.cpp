#include "tests/worker/harness.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace quire::test {
namespace {

// Calls work(r) on one thread per rank and returns the first error. A rank that fails tells the
// others, so that nobody waits for it.
template <typename Work>
absl::Status on_all_ranks(std::vector<std::unique_ptr<Rank>>& ranks, bool started, Work work) {
  std::vector<absl::Status> statuses(ranks.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      statuses[r] = work(static_cast<int>(r));
      if (!statuses[r].ok() && started) ranks[r]->comm().abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  // What a rank did wrong itself says more than that a peer did not come.
  absl::Status first;
  for (const absl::Status& status : statuses) {
    const bool of_a_peer =
        absl::IsDeadlineExceeded(status) || absl::IsAborted(status) || absl::IsUnavailable(status);
    if (!status.ok() && (first.ok() || !of_a_peer)) first = status;
  }
  return first;
}

absl::Status add_store(Rank& rank, const GroupOptions& options) {
  if (options.num_host_blocks == 0) return absl::OkStatus();
  const std::size_t block_bytes = rank.kv_block_bytes(options.limits.block_size);
  HostStoreOptions store;
  store.bytes = static_cast<std::int64_t>(block_bytes) * options.num_host_blocks;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<HostStore> opened,
                         HostStore::open(store, block_bytes, rank.device()));
  QUIRE_RETURN_IF_ERROR(opened->begin_epoch(options.num_host_blocks, false));
  rank.keep_store(std::move(opened));
  return absl::OkStatus();
}

std::string unique_name() {
  static std::atomic<int> counter{0};
  return absl::StrCat("quire-test-", ::getpid(), "-", counter++);
}

// Block ids of the group's arena in an order without neighbours.
class Blocks {
 public:
  explicit Blocks(const StepLimits& limits) : size_(limits.num_blocks) {}
  BlockId take() {
    QUIRE_CHECK_LT(next_, size_);
    int stride = size_ / 3 + 1;
    while (std::gcd(stride, size_) != 1) ++stride;
    return static_cast<BlockId>(std::int64_t{next_++} * stride % size_);
  }

 private:
  int size_;
  int next_ = 0;
};

// One prompt on its way.
struct Running {
  const Prompt* prompt = nullptr;
  int length = 0;  // tokens the slot has
  int computed = 0;
  int num_blocks = 0;
  Output output;
  bool done() const { return static_cast<int>(output.tokens.size()) == prompt->max_tokens; }
};

PlanRow grant(Running& run, SlotId slot, int num_tokens, int block_size, Blocks& blocks) {
  PlanRow row;
  row.slot = slot;
  row.first_position = run.computed;
  row.num_tokens = num_tokens;
  row.samples = run.computed + num_tokens == run.length;
  row.new_blocks.resize(1);
  while (run.num_blocks * block_size < run.computed + num_tokens) {
    row.new_blocks[0].push_back(blocks.take());
    ++run.num_blocks;
  }
  run.computed += num_tokens;
  return row;
}

// One text along which the model is led: admitted anew for every token, over the same blocks.
struct Forcing {
  const ForcedText* text = nullptr;
  std::vector<TokenId> tokens;
  int computed = 0;
  std::vector<BlockId> table;
  Output output;

  bool done() const { return output.tokens.size() == text->forced.size(); }
  PlanRow grant(SlotId slot, int num_tokens, int block_size, Blocks& blocks) {
    PlanRow row;
    row.slot = slot;
    row.first_position = computed;
    row.num_tokens = num_tokens;
    computed += num_tokens;
    row.samples = computed == static_cast<int>(tokens.size());
    while (static_cast<int>(table.size()) * block_size < computed) table.push_back(blocks.take());
    row.new_blocks = {table};
    return row;
  }
  void take(RowResult row) {
    tokens.push_back(text->forced[output.tokens.size()]);
    output.tokens.push_back(row.token);
    output.logprobs.push_back(std::move(row.logprobs));
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::open(const std::string& model,
                                                           const GroupOptions& options) {
  return open(std::vector<std::string>(static_cast<std::size_t>(options.world), model), options);
}

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::open(const std::vector<std::string>& models,
                                                           const GroupOptions& options) {
  QUIRE_CHECK_EQ(models.size(), static_cast<std::size_t>(options.world));
  auto group = std::make_unique<RankGroup>();
  group->options_ = options;
  DeviceOptions device;
  device.kind = options.device;
  device.dtype = options.dtype;
  device.kv_dtype = options.kv_dtype;
  device.num_threads = options.threads;
  device.num_local_ranks = options.world;
  for (int r = 0; r < options.world; ++r) {
    QUIRE_ASSIGN_OR_RETURN(ModelFile file,
                           open_model(models[static_cast<std::size_t>(r)], options.load_format));
    device.local_rank = r;
    QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Device> opened, options.open_device(device));
    const RankPlace place{r, options.world, 0, options.world};
    QUIRE_ASSIGN_OR_RETURN(
        std::unique_ptr<Rank> rank,
        Rank::load(std::move(file), std::move(opened), place, make_progress("none", "")));
    QUIRE_RETURN_IF_ERROR(add_store(*rank, options));
    group->ranks_.push_back(std::move(rank));
  }
  const std::string name = unique_name();
  std::string id;
  if (!group->ranks_[0]->collective_kind().empty()) {
    QUIRE_ASSIGN_OR_RETURN(id, group->ranks_[0]->device().make_collective_id());
  }
  QUIRE_RETURN_IF_ERROR(on_all_ranks(group->ranks_, false, [&](int r) {
    return group->ranks_[static_cast<std::size_t>(r)]->start(options.limits, name, id);
  }));
  return group;
}

RankGroup::~RankGroup() {
  std::vector<std::thread> threads;
  for (std::unique_ptr<Rank>& rank : ranks_) threads.emplace_back([&rank] { rank.reset(); });
  for (std::thread& thread : threads) thread.join();
}

absl::StatusOr<StepResult> RankGroup::step(StepPlan plan) {
  QUIRE_ASSIGN_OR_RETURN(std::vector<StepResult> results, run_ahead({std::move(plan)}));
  return std::move(results[0]);
}

namespace {

absl::StatusOr<std::vector<StepResult>> run_plans(Runner& runner,
                                                  const std::vector<StepPlan>& plans) {
  std::vector<StepResult> results;
  const auto finish = [&] {
    absl::StatusOr<StepResult> result = runner.finish();
    if (result.ok()) results.push_back(*std::move(result));
    return result.status();
  };
  for (const StepPlan& plan : plans) {
    while (!runner.may_enqueue()) QUIRE_RETURN_IF_ERROR(finish());
    QUIRE_RETURN_IF_ERROR(runner.enqueue(plan));
  }
  while (runner.in_flight() > 0) QUIRE_RETURN_IF_ERROR(finish());
  return results;
}

bool same_picks(const StepResult& a, const StepResult& b) {
  return std::equal(a.rows.begin(), a.rows.end(), b.rows.begin(), b.rows.end(),
                    [](const RowResult& x, const RowResult& y) { return x.token == y.token; });
}

}  // namespace

absl::StatusOr<std::vector<StepResult>> RankGroup::run_ahead(std::vector<StepPlan> plans) {
  for (StepPlan& plan : plans) {
    plan.epoch = 1;
    plan.step = ++step_;
  }
  std::vector<std::vector<StepResult>> results(ranks_.size());
  QUIRE_RETURN_IF_ERROR(on_all_ranks(ranks_, true, [&](int r) {
    const auto index = static_cast<std::size_t>(r);
    auto mine = run_plans(ranks_[index]->runner(), plans);
    if (mine.ok()) results[index] = *std::move(mine);
    return mine.status();
  }));
  std::vector<StepResult> sampled;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    StepResult& result = results[static_cast<std::size_t>(plans[i].sampling_rank)][i];
    for (const std::vector<StepResult>& others : results) {
      if (!same_picks(others[i], result)) {
        return absl::InternalError("the ranks picked different tokens");
      }
    }
    sampled.push_back(result);
  }
  return sampled;
}

Prompt greedy(std::vector<TokenId> ids, int max_tokens, int logprobs) {
  Prompt prompt;
  prompt.ids = std::move(ids);
  prompt.max_tokens = max_tokens;
  prompt.params.temperature = 0.0f;
  prompt.params.logprobs = logprobs;
  return prompt;
}

absl::StatusOr<std::vector<Output>> generate(RankGroup& group, const std::vector<Prompt>& prompts,
                                             int chunk) {
  const StepLimits& limits = group.limits();
  Blocks blocks(limits);
  StepPlan plan;
  std::vector<Running> running;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Prompt& prompt = prompts[i];
    const auto length = static_cast<int>(prompt.ids.size());
    plan.admits.push_back({static_cast<SlotId>(i), prompt.ids, -1, length - prompt.num_output,
                           prompt.sample_index, prompt.params});
    running.push_back({&prompt, length, 0, 0, {}});
  }
  for (;;) {
    int budget = limits.max_num_batched_tokens;
    for (std::size_t i = 0; i < running.size(); ++i) {
      Running& run = running[i];
      int tokens = std::min(run.length - run.computed, budget);
      if (chunk > 0) tokens = std::min(tokens, chunk);
      if (run.done() || tokens == 0) continue;
      budget -= tokens;
      plan.rows.push_back(grant(run, static_cast<SlotId>(i), tokens, limits.block_size, blocks));
    }
    if (plan.rows.empty()) break;
    QUIRE_ASSIGN_OR_RETURN(StepResult result, group.step(plan));
    for (RowResult& row : result.rows) {
      Running& run =
          running[static_cast<std::size_t>(plan.rows[static_cast<std::size_t>(row.row)].slot)];
      run.output.tokens.push_back(row.token);
      run.output.logprobs.push_back(std::move(row.logprobs));
      ++run.length;
    }
    plan = StepPlan();
  }
  std::vector<Output> outputs;
  for (std::size_t i = 0; i < running.size(); ++i) {
    plan.releases.push_back(static_cast<SlotId>(i));
    outputs.push_back(std::move(running[i].output));
  }
  QUIRE_RETURN_IF_ERROR(group.step(plan).status());
  return outputs;
}

absl::StatusOr<std::vector<Output>> teacher_force(RankGroup& group,
                                                  const std::vector<ForcedText>& texts,
                                                  int logprobs) {
  Blocks blocks(group.limits());
  const Prompt prompt = greedy({}, 1, logprobs);
  std::vector<Forcing> forcing;
  for (const ForcedText& text : texts) forcing.push_back({&text, text.prompt, 0, {}, {}});
  StepPlan plan;
  for (;;) {
    int budget = group.limits().max_num_batched_tokens;
    for (std::size_t i = 0; i < forcing.size(); ++i) {
      Forcing& text = forcing[i];
      const int tokens = std::min(static_cast<int>(text.tokens.size()) - text.computed, budget);
      if (text.done() || tokens == 0) continue;
      const auto slot = static_cast<SlotId>(i);
      if (text.computed > 0) plan.releases.push_back(slot);
      plan.admits.push_back(
          {slot, text.tokens, -1, static_cast<int>(text.text->prompt.size()), 0, prompt.params});
      plan.rows.push_back(text.grant(slot, tokens, group.limits().block_size, blocks));
      budget -= tokens;
    }
    if (plan.rows.empty()) break;
    QUIRE_ASSIGN_OR_RETURN(StepResult result, group.step(plan));
    for (RowResult& row : result.rows) {
      const SlotId slot = plan.rows[static_cast<std::size_t>(row.row)].slot;
      forcing[static_cast<std::size_t>(slot)].take(std::move(row));
    }
    plan = StepPlan();
  }
  std::vector<Output> outputs;
  for (std::size_t i = 0; i < forcing.size(); ++i) {
    plan.releases.push_back(static_cast<SlotId>(i));
    outputs.push_back(std::move(forcing[i].output));
  }
  QUIRE_RETURN_IF_ERROR(group.step(plan).status());
  return outputs;
}

float logprob_of(const std::vector<TokenLogprob>& row, TokenId token) {
  for (const TokenLogprob& entry : row) {
    if (entry.token == token) return entry.logprob;
  }
  return -std::numeric_limits<float>::infinity();
}

}  // namespace quire::test
