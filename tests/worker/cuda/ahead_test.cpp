// Steps in flight and kept records over the emulated GPU, whose streams run only when somebody
// waits: plans that are enqueued ahead give what one after the other gives, and what no graph
// gives.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/cuda/emulated.h"
#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr int kMaxSteps = 24;

// A script of plans that nothing the model says could change: sequences come and go, slots change
// hands while the last pick of their former occupant is in flight, prompts come in chunks beside
// rows that decode, choices fork, and guesses are made for a sequence that is given up before they
// are known to be right.
class Script {
 public:
  void admit(SlotId slot, int length, const SamplingParams& params) {
    sequences_[slot] = {length, 0, {}};
    plan().admits.push_back({slot,
                             random_ids(static_cast<std::uint64_t>(7 + slot + length), length), -1,
                             length, slot, params});
  }
  void release(SlotId slot) { plan().releases.push_back(slot); }
  void grant(SlotId slot, int tokens) {
    Sequence& sequence = sequences_[slot];
    PlanRow row;
    row.slot = slot;
    row.first_position = sequence.computed;
    row.num_tokens = tokens;
    sequence.computed += tokens;
    row.samples = sequence.computed == sequence.length;
    if (row.samples) ++sequence.length;
    row.new_blocks.resize(1);
    while (16 * static_cast<int>(sequence.table.size()) < sequence.computed) {
      row.new_blocks[0].push_back(next_block_);
      sequence.table.push_back(next_block_++);
    }
    plan().rows.push_back(row);
  }
  // Behind the parent's row: the fork picks with it.
  void fork(SlotId slot, SlotId parent, const SamplingParams& params) {
    AdmitRow admit;
    admit.slot = slot;
    admit.fork_of = parent;
    admit.num_prompt_tokens = plan().admits.back().num_prompt_tokens;
    admit.sample_index = slot;
    admit.params = params;
    plan().admits.push_back(admit);
    sequences_[slot] = sequences_[parent];
    PlanRow row = plan().rows.back();
    row.slot = slot;
    row.first_position += row.num_tokens;
    row.num_tokens = 0;
    plan().rows.push_back(row);
  }
  // Decodes, from here on in a copy of the only block.
  void part(SlotId slot) {
    Sequence& sequence = sequences_[slot];
    grant(slot, 1);
    plan().copies.push_back({0, sequence.table[0], next_block_});
    plan().rows.back().keep_blocks = 0;
    plan().rows.back().new_blocks = {{next_block_}};
    sequence.table[0] = next_block_++;
  }
  // The whole prompt and guesses behind it.
  void guess(SlotId slot, std::vector<TokenId> drafts) {
    const auto count = static_cast<int>(drafts.size());
    sequences_[slot].length += count;
    grant(slot, sequences_[slot].length);
    plan().rows.back().drafts = std::move(drafts);
  }
  void decode(std::initializer_list<SlotId> slots) {
    for (const SlotId slot : slots) grant(slot, 1);
    next();
  }
  void next() { plans_.emplace_back(); }
  std::vector<StepPlan> plans() const { return {plans_.begin(), plans_.end() - 1}; }

 private:
  struct Sequence {
    int length = 0, computed = 0;
    std::vector<BlockId> table;
  };
  StepPlan& plan() { return plans_.back(); }
  std::vector<StepPlan> plans_ = std::vector<StepPlan>(1);
  std::map<SlotId, Sequence> sequences_;
  BlockId next_block_ = 3;
};

SamplingParams greedy_params() {
  SamplingParams params;
  params.temperature = 0.0f;
  params.logprobs = 3;
  params.max_tokens = kMaxSteps;
  return params;
}

SamplingParams drawn(std::uint64_t seed) {
  SamplingParams params;
  params.temperature = 0.9f;
  params.top_p = 0.9f;
  params.seed = seed;
  params.max_tokens = kMaxSteps;
  return params;
}

SamplingParams penalized(std::uint64_t seed) {
  SamplingParams params = drawn(seed);
  params.frequency_penalty = 1.5f;
  params.repetition_penalty = 1.3f;
  return params;
}

std::vector<StepPlan> script(bool with_penalties) {
  Script s;
  s.admit(0, 20, greedy_params());
  s.admit(1, 33, drawn(5));
  s.grant(0, 20);
  s.grant(1, 30);  // a chunk: nothing is picked for it
  s.next();
  s.grant(0, 1);
  s.grant(1, 3);
  s.next();
  for (int i = 0; i < 4; ++i) s.decode({0, 1});
  if (with_penalties) {
    s.admit(2, 5, penalized(9));
    s.grant(2, 5);
    s.grant(0, 1);
    s.grant(1, 1);
    s.next();
    for (int i = 0; i < 5; ++i) s.decode({0, 1, 2});
  }
  s.release(1);  // while its last pick may be in flight
  s.admit(1, 4, greedy_params());
  s.grant(1, 4);
  s.fork(5, 1, drawn(11));
  s.fork(6, 1, drawn(11));
  s.grant(0, 1);
  s.next();
  s.grant(1, 1);
  s.part(5);
  s.part(6);
  s.grant(0, 1);
  s.next();
  s.admit(3, 6, greedy_params());
  s.guess(3, {8, 9});
  s.decode({1, 0, 6});
  s.decode({1, 0, 6, 5});
  s.release(3);
  s.decode({1, 0});
  s.decode({1});
  s.decode({0});
  for (int i = 0; i < 3; ++i) s.decode({0, 1});
  return s.plans();
}

std::vector<StepResult> results_of(const std::string& model, int world, bool eager, bool ahead,
                                   const std::vector<StepPlan>& plans) {
  GroupOptions options;
  options.device = "cuda";
  options.world = world;
  options.limits.max_num_seqs = 7;
  options.open_device = [eager](DeviceOptions device) {
    device.enforce_eager = eager;
    return open_emulated(device);
  };
  const auto group = RankGroup::open(model, options);
  EXPECT_TRUE(group.ok()) << group.status();
  if (!group.ok()) return {};
  if (ahead) {
    auto results = (*group)->run_ahead(plans);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? *std::move(results) : std::vector<StepResult>();
  }
  std::vector<StepResult> results;
  for (const StepPlan& plan : plans) {
    auto result = (*group)->step(plan);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    results.push_back(*std::move(result));
  }
  return results;
}

void expect_same(const std::vector<StepResult>& got, const std::vector<StepResult>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "step " << i + 1);
    ASSERT_EQ(got[i].rows.size(), want[i].rows.size());
    for (std::size_t r = 0; r < got[i].rows.size(); ++r) {
      const RowResult &a = got[i].rows[r], &b = want[i].rows[r];
      EXPECT_EQ(a.row, b.row);
      EXPECT_EQ(a.token, b.token);
      ASSERT_EQ(a.logprobs.size(), b.logprobs.size());
      for (std::size_t k = 0; k < a.logprobs.size(); ++k) {
        EXPECT_EQ(a.logprobs[k].token, b.logprobs[k].token);
        EXPECT_EQ(a.logprobs[k].logprob, b.logprobs[k].logprob);
      }
    }
  }
}

class Ahead : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    TinyOptions tiny;
    tiny.seed = 77;
    write_tiny_gguf(scratch_ / "tiny.gguf", tiny);
  }
  std::string model() const { return scratch_ / "tiny.gguf"; }
  ScratchFolder scratch_;
};

TEST_P(Ahead, PlansInFlightAndKeptRecordsGiveWhatOneByOneGives) {
  const std::vector<StepPlan> plans = script(false);
  const int launches = cuda_emulation::graph_launches();
  const auto eager = results_of(model(), GetParam(), true, false, plans);
  EXPECT_EQ(cuda_emulation::graph_launches(), launches);
  expect_same(results_of(model(), GetParam(), false, true, plans), eager);
  EXPECT_GT(cuda_emulation::graph_launches(), launches);
}
INSTANTIATE_TEST_SUITE_P(Ranks, Ahead, testing::Values(1, 3));

using AheadOfCounts = Ahead;
TEST_P(AheadOfCounts, RowsWhoseTokensAreCountedWaitForThem) {
  const std::vector<StepPlan> plans = script(true);
  expect_same(results_of(model(), GetParam(), true, true, plans),
              results_of(model(), GetParam(), true, false, plans));
}
INSTANTIATE_TEST_SUITE_P(Ranks, AheadOfCounts, testing::Values(2));

}  // namespace
}  // namespace quire::test
