// SmolLM2 against every row of reference/smollm2/README.md "Tolerances" that takes long: all items,
// all windows, by the class of the arithmetic. The reference's full rows are not stored, so KL20 is
// taken against our own fp32 run, which is class A (checked here as well).
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/worker/hf_checkpoint.h"
#include "tests/worker/smollm2.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using SmolLm2Long = SmolLm2;

void expect_nll(const absl::StatusOr<std::vector<double>>& deviations, double limit) {
  ASSERT_TRUE(deviations.ok()) << deviations.status();
  ASSERT_EQ(deviations->size(), 40u);
  std::vector<double> sizes;
  for (const double deviation : *deviations) sizes.push_back(std::abs(deviation));
  std::printf("d NLL of 40 windows %+.2e, largest of a window %.2e\n", mean_of(*deviations),
              largest_of(sizes));
  EXPECT_LE(std::abs(mean_of(*deviations)), limit);
}

void expect_prompts(const absl::StatusOr<std::vector<double>>& deviations,
                    const ArithmeticClass& limits) {
  ASSERT_TRUE(deviations.ok()) << deviations.status();
  ASSERT_EQ(deviations->size(), 3093u);
  expect_within("|d logprob| of prompt tokens", *deviations, limits.prompt_mean, limits.prompt_p99,
                limits.prompt_max);
}

TEST_F(SmolLm2Long, AlongAllContinuations) {
  auto exact = lead(demo_model(), "float32", kAll, kAll);
  ASSERT_TRUE(exact.ok()) << exact.status();
  std::printf("float32, class A\n");
  expect_golden(*exact, kClassA);
  ASSERT_TRUE(look_closer(demo_model(), "float32", *exact).ok());

  std::printf("8-bit activations, class C\n");
  auto quantized = lead(demo_model(), "auto", kAll, kAll);
  ASSERT_TRUE(quantized.ok()) << quantized.status();
  expect_golden(*quantized, kClassC);
  ASSERT_TRUE(look_closer(demo_model(), "auto", *quantized, exact->best).ok());
  expect_kl20(*quantized, kClassC);

  std::printf("bf16, class B\n");
  const ScratchFolder scratch;
  ASSERT_TRUE(write_bf16_hf(demo_model(), scratch / "bf16").ok());
  auto bf16 = lead(scratch / "bf16", "auto", kAll, kAll);
  ASSERT_TRUE(bf16.ok()) << bf16.status();
  expect_golden(*bf16, kClassB);
  ASSERT_TRUE(look_closer(scratch / "bf16", "auto", *bf16, exact->best).ok());
  expect_kl20(*bf16, kClassB);
}

// The fp32 path against the plain loops of the reference device, which share no kernel with it:
// KL20 of class A. Those loops take seconds a token, so a few tokens must do.
TEST_F(SmolLm2Long, Kl20OfFloat32AgainstThePlainLoops) {
  constexpr std::size_t kTokens = 24;
  for (nlohmann::json& item : items_) {
    auto ids = item["output_ids"].get<std::vector<TokenId>>();
    ids.resize(std::min(ids.size(), kTokens));
    item["output_ids"] = ids;
  }
  auto fast = lead(demo_model(), "float32", 1, 1);  // the prompt of one token
  ASSERT_TRUE(fast.ok()) << fast.status();
  ForcedRun plain;
  plain.items = fast->items;
  ASSERT_TRUE(look_closer(demo_model(), "float32", plain, {}, "reference").ok());
  ASSERT_TRUE(look_closer(demo_model(), "float32", *fast, plain.best).ok());
  EXPECT_EQ(fast->kl20.size(), kTokens);
  expect_kl20(*fast, kClassA);
}

TEST_F(SmolLm2Long, NllInFloat32) {
  expect_nll(nll_deviations(demo_model(), "float32", kAll), kClassA.nll);
}

TEST_F(SmolLm2Long, NllOfEightBitActivations) {
  expect_nll(nll_deviations(demo_model(), "auto", kAll), kClassC.nll);
}

TEST_F(SmolLm2Long, NllInBf16) {
  const ScratchFolder scratch;
  ASSERT_TRUE(write_bf16_hf(demo_model(), scratch / "bf16").ok());
  expect_nll(nll_deviations(scratch / "bf16", "auto", kAll), kClassB.nll);
}

TEST_F(SmolLm2Long, PromptLogprobs) {
  std::printf("float32, class A\n");
  expect_prompts(prompt_deviations(demo_model(), "float32", kAll), kClassA);
  std::printf("8-bit activations, class C\n");
  expect_prompts(prompt_deviations(demo_model(), "auto", kAll), kClassC);
  std::printf("bf16, class B\n");
  const ScratchFolder scratch;
  ASSERT_TRUE(write_bf16_hf(demo_model(), scratch / "bf16").ok());
  expect_prompts(prompt_deviations(scratch / "bf16", "auto", kAll), kClassB);
}

}  // namespace
}  // namespace quire::test
