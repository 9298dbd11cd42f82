// --deterministic over the emulated GPU: tokens and the bits of logprobs are the same alone and in
// a batch that grows past the few-row kernels, in chunks, and recomputed from what was generated.
#include <gtest/gtest.h>

#include "tests/worker/cuda/emulated.h"
#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 4242;
constexpr int kTokens = 3;

class Deterministic : public testing::TestWithParam<TinyOptions::Storage> {
 protected:
  void SetUp() override {
    TinyOptions tiny;
    tiny.seed = kSeed;
    tiny.storage = GetParam();
    write_tiny_gguf(scratch_ / "tiny.gguf", tiny);
    GroupOptions options;
    options.device = "cuda";
    options.dtype = "auto";
    options.open_device = [](DeviceOptions device) {
      device.deterministic = true;
      return open_emulated(device);
    };
    auto group = RankGroup::open(scratch_ / "tiny.gguf", options);
    ASSERT_TRUE(group.ok()) << group.status();
    group_ = *std::move(group);
  }
  std::vector<Output> run(const std::vector<Prompt>& prompts, int chunk = 0) {
    auto outputs = generate(*group_, prompts, chunk);
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? *std::move(outputs) : std::vector<Output>(prompts.size());
  }
  ScratchFolder scratch_;
  std::unique_ptr<RankGroup> group_;
};

// The last tokens of `whole` are all of `part`.
void expect_end(const Output& whole, const Output& part) {
  ASSERT_FALSE(part.tokens.empty());
  ASSERT_GE(whole.tokens.size(), part.tokens.size());
  const std::size_t skip = whole.tokens.size() - part.tokens.size();
  for (std::size_t i = 0; i < part.tokens.size(); ++i) {
    EXPECT_EQ(part.tokens[i], whole.tokens[skip + i]);
    ASSERT_EQ(part.logprobs[i].size(), whole.logprobs[skip + i].size());
    for (std::size_t k = 0; k < part.logprobs[i].size(); ++k) {
      EXPECT_EQ(part.logprobs[i][k].logprob, whole.logprobs[skip + i][k].logprob) << i;
    }
  }
}

TEST_P(Deterministic, AloneInABatchAndRecomputed) {
  RecordProperty("seed", static_cast<int>(kSeed));
  std::vector<Prompt> prompts;
  for (int i = 0; i < 18; ++i) {  // more rows than the few-row kernels take
    prompts.push_back(
        greedy(random_ids(kSeed + static_cast<std::uint64_t>(i), 2 + i % 3), kTokens));
  }
  Prompt& drawn = prompts[1];
  drawn.ids = random_ids(kSeed + 99, 21);
  drawn.params.temperature = 0.8f;
  drawn.params.seed = 5;
  const std::vector<Output> together = run(prompts);
  expect_end(together[1], run({drawn})[0]);
  expect_end(together[1], run({drawn}, 5)[0]);
  Prompt again = drawn;  // as after a recovery
  again.ids.push_back(together[1].tokens[0]);
  again.num_output = 1;
  again.max_tokens = kTokens - 1;
  expect_end(together[1], run({again})[0]);
}

INSTANTIATE_TEST_SUITE_P(Weights, Deterministic,
                         testing::Values(TinyOptions::Storage::kBf16,
                                         TinyOptions::Storage::kMixed));

}  // namespace
}  // namespace quire::test
