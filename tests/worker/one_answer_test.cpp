// One answer, whatever the number of ranks, the company in the batch, or the cut of the prompt:
// token ids and the bits of the 20 best logprobs, on the project's own tiny model.
#include <gtest/gtest.h>

#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 20261123;

// Greedy and sampled prompts of many lengths; every seed and index its own.
std::vector<Prompt> make_prompts(int count) {
  std::vector<Prompt> prompts;
  for (int i = 0; i < count; ++i) {
    Prompt prompt =
        greedy(random_ids(kSeed + static_cast<std::uint64_t>(i), 1 + i * 7 % 61), 9, 20);
    if (i % 2 == 1) {
      prompt.params.temperature = 0.9f;
      prompt.params.top_p = 0.9f;
      prompt.params.seed = static_cast<std::uint64_t>(i);
      prompt.sample_index = i % 3;
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

void expect_same(const Output& a, const Output& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size()) << what;
  for (std::size_t i = 0; i < a.logprobs.size(); ++i) {
    ASSERT_EQ(a.logprobs[i].size(), b.logprobs[i].size()) << what;
    for (std::size_t k = 0; k < a.logprobs[i].size(); ++k) {
      EXPECT_EQ(a.logprobs[i][k].token, b.logprobs[i][k].token) << what << ", token " << i;
      EXPECT_EQ(a.logprobs[i][k].logprob, b.logprobs[i][k].logprob) << what << ", token " << i;
    }
  }
}

struct Kind {
  const char* name;
  TinyOptions::Storage storage;
  const char* device;
  const char* dtype;
};

class OneAnswer : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    TinyOptions tiny;
    tiny.seed = kSeed;
    tiny.storage = GetParam().storage;
    tiny.tied = GetParam().storage != TinyOptions::Storage::kBf16;
    write_tiny_gguf(scratch_ / "tiny.gguf", tiny);
    RecordProperty("seed", static_cast<int>(kSeed));
  }
  std::unique_ptr<RankGroup> open(int world, int threads = 1) {
    GroupOptions options;
    options.device = GetParam().device;
    options.dtype = GetParam().dtype;
    options.world = world;
    options.threads = threads;
    auto group = RankGroup::open(scratch_ / "tiny.gguf", options);
    EXPECT_TRUE(group.ok()) << group.status();
    return group.ok() ? *std::move(group) : nullptr;
  }
  // The reference device is slow on purpose: it gets fewer prompts.
  bool slow() const { return std::string(GetParam().device) == "reference"; }
  ScratchFolder scratch_;
};

TEST_P(OneAnswer, AnyNumberOfRanks) {
  const std::vector<Prompt> prompts = make_prompts(slow() ? 2 : 6);
  std::vector<Output> first;
  for (const int world : {1, 2, 3, 4, 9}) {
    const auto group = open(world);
    ASSERT_NE(group, nullptr);
    const auto outputs = generate(*group, prompts);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    if (first.empty()) first = *outputs;
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      expect_same((*outputs)[p], first[p], std::to_string(world) + " ranks");
    }
  }
}

TEST_P(OneAnswer, AloneOrAmongThirtyTwo) {
  const std::vector<Prompt> prompts = make_prompts(slow() ? 8 : 32);
  const auto group = open(1, 2);
  ASSERT_NE(group, nullptr);
  const auto together = generate(*group, prompts);
  ASSERT_TRUE(together.ok()) << together.status();
  for (std::size_t p = 0; p < prompts.size(); p += 5) {
    const auto alone = generate(*group, {prompts[p]});
    ASSERT_TRUE(alone.ok()) << alone.status();
    expect_same((*together)[p], (*alone)[0], "prompt " + std::to_string(p));
  }
}

TEST_P(OneAnswer, PromptWholeOrInChunks) {
  Prompt prompt = greedy(random_ids(kSeed, 150), 6, 20);
  const auto group = open(1);
  ASSERT_NE(group, nullptr);
  const auto whole = generate(*group, {prompt});
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const int chunk : {7, 16, 33, 149, 1}) {
    if (slow() && chunk != 33) continue;
    const auto cut = generate(*group, {prompt}, chunk);
    ASSERT_TRUE(cut.ok()) << cut.status();
    expect_same((*cut)[0], (*whole)[0], "chunks of " + std::to_string(chunk));
  }
}

// Preemption and recovery: admitted again with prompt and generated tokens, the same goes on.
TEST_P(OneAnswer, RecomputeGoesOnWhereItWas) {
  const Prompt prompt = make_prompts(8)[7];
  const auto group = open(2);
  ASSERT_NE(group, nullptr);
  const auto whole = generate(*group, {prompt});
  ASSERT_TRUE(whole.ok()) << whole.status();
  Prompt rest = prompt;
  rest.max_tokens = prompt.max_tokens - 4;
  rest.ids.insert(rest.ids.end(), (*whole)[0].tokens.begin(), (*whole)[0].tokens.begin() + 4);
  const auto resumed = generate(*group, {rest});
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ((*resumed)[0].tokens,
            std::vector<TokenId>((*whole)[0].tokens.begin() + 4, (*whole)[0].tokens.end()));
}

constexpr Kind kKinds[] = {
    {"f32_cpu", TinyOptions::Storage::kF32, "cpu", "auto"},
    {"bf16_cpu", TinyOptions::Storage::kBf16, "cpu", "auto"},
    {"mixed_cpu", TinyOptions::Storage::kMixed, "cpu", "auto"},
    {"mixed_reference", TinyOptions::Storage::kMixed, "reference", "auto"},
};
INSTANTIATE_TEST_SUITE_P(Kinds, OneAnswer, testing::ValuesIn(kKinds),
                         [](const auto& each) { return std::string(each.param.name); });

// The same weights in both containers: rotate-half rows in one, interleaved rows in the other.
TEST(TinyModel, GgufAndFolderAgree) {
  ScratchFolder scratch;
  TinyOptions tiny;
  tiny.biases = true;
  tiny.tied = false;
  write_tiny_gguf(scratch / "tiny.gguf", tiny);
  write_tiny_hf(scratch / "tiny", tiny);
  GroupOptions options;
  options.world = 2;
  const std::vector<Prompt> prompts = {greedy(random_ids(3, 40), 8, 20)};
  std::vector<Output> outputs;
  for (const char* name : {"tiny.gguf", "tiny"}) {
    auto group = RankGroup::open(scratch / name, options);
    ASSERT_TRUE(group.ok()) << group.status();
    const auto output = generate(**group, prompts);
    ASSERT_TRUE(output.ok()) << output.status();
    outputs.push_back((*output)[0]);
  }
  EXPECT_EQ(outputs[0].tokens, outputs[1].tokens);
  for (std::size_t i = 0; i < outputs[0].logprobs.size(); ++i) {
    EXPECT_NEAR(outputs[0].logprobs[i][0].logprob, outputs[1].logprobs[i][0].logprob, 1e-4);
  }
}

// The fast device against the definition of right.
TEST(TinyModel, CpuAgreesWithReference) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "tiny.gguf", {});
  std::vector<Output> outputs;
  for (const char* device : {"reference", "cpu"}) {
    GroupOptions options;
    options.device = device;
    auto group = RankGroup::open(scratch / "tiny.gguf", options);
    ASSERT_TRUE(group.ok()) << group.status();
    const auto output = generate(**group, {greedy(random_ids(9, 70), 8, 20)}, 13);
    ASSERT_TRUE(output.ok()) << output.status();
    outputs.push_back((*output)[0]);
  }
  EXPECT_EQ(outputs[0].tokens, outputs[1].tokens);
  for (std::size_t i = 0; i < outputs[0].logprobs.size(); ++i) {
    EXPECT_NEAR(outputs[0].logprobs[i][0].logprob, outputs[1].logprobs[i][0].logprob, 1e-4);
  }
}

}  // namespace
}  // namespace quire::test
