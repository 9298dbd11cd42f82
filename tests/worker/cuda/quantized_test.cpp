// Quantized checkpoints over the emulated GPU: the answers of the same numbers stored as fp32 on
// the reference, within what fp32 sums in another order may differ, alike on one rank and two.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "tests/worker/cuda/emulated.h"
#include "tests/worker/harness.h"
#include "tests/worker/quantized_checkpoint.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 21;
constexpr float kTolerance = 1e-4f;

Output answer(const std::string& model, const std::string& device, int world,
              LoadFormat load_format = LoadFormat::kAuto) {
  GroupOptions options;
  options.device = device;
  options.world = world;
  options.load_format = load_format;
  if (device == "cuda") options.open_device = open_emulated;
  auto group = RankGroup::open(model, options);
  EXPECT_TRUE(group.ok()) << group.status();
  if (!group.ok()) return {};
  const auto outputs = generate(**group, {greedy(random_ids(kSeed, 21), 3)});
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? (*outputs)[0] : Output();
}

void expect_near(const Output& got, const Output& want) {
  ASSERT_EQ(got.tokens, want.tokens);
  ASSERT_FALSE(want.tokens.empty());
  float worst = 0.0f;
  for (std::size_t t = 0; t < want.logprobs.size(); ++t) {
    for (const TokenLogprob& entry : want.logprobs[t]) {
      worst = std::max(worst, std::fabs(logprob_of(got.logprobs[t], entry.token) - entry.logprob));
    }
  }
  std::printf("max |d| of the logprobs: %g\n", worst);
  EXPECT_LE(worst, kTolerance);
}

struct Case {
  const char* name;
  QuantScheme scheme;
};
class CudaQuantizedTest : public testing::TestWithParam<Case> {};

TEST_P(CudaQuantizedTest, AnswersAsItsPlainTwinDoesOnTheReference) {
  const ScratchFolder scratch;
  write_quantized_hf(scratch / "quantized", scratch / "plain", {GetParam().scheme, 32, {}});
  const Output want = answer(scratch / "plain", "reference", 1);
  expect_near(answer(scratch / "quantized", "cuda", 1), want);
  expect_near(answer(scratch / "quantized", "cuda", 2), want);
}

INSTANTIATE_TEST_SUITE_P(Schemes, CudaQuantizedTest,
                         testing::Values(Case{"Awq", QuantScheme::kAwq},
                                         Case{"Gptq8", QuantScheme::kGptq8},
                                         Case{"Fp8Channel", QuantScheme::kFp8Channel},
                                         Case{"Int8Channel", QuantScheme::kInt8Channel}),
                         [](const testing::TestParamInfo<Case>& c) {
                           return std::string(c.param.name);
                         });

TEST(CudaQuantized, SuperblocksCutInside) {
  const ScratchFolder scratch;
  TinyOptions tiny;
  tiny.storage = TinyOptions::Storage::kSuperblocks;
  write_tiny_gguf(scratch / "tiny.gguf", tiny);
  const Output want = answer(scratch / "tiny.gguf", "reference", 1);
  expect_near(answer(scratch / "tiny.gguf", "cuda", 1), want);
  expect_near(answer(scratch / "tiny.gguf", "cuda", 3), want);
}

TEST(CudaQuantized, MadeUpWeights) {
  const ScratchFolder scratch;
  TinyOptions tiny;
  tiny.storage = TinyOptions::Storage::kSuperblocks;
  write_tiny_gguf(scratch / "tiny.gguf", tiny);
  const Output want = answer(scratch / "tiny.gguf", "reference", 1, LoadFormat::kDummy);
  expect_near(answer(scratch / "tiny.gguf", "cuda", 2, LoadFormat::kDummy), want);
}

}  // namespace
}  // namespace quire::test
