// Sliding windows through the whole worker, on a tiny seeded Mistral whose window is shorter than
// the prompts: one answer whatever the ranks, the chunks, the container and the device.
#include <gtest/gtest.h>

#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 310;
constexpr int kWindow = 40;

std::vector<Prompt> prompts() {
  return {greedy(random_ids(kSeed, 330), 8, 20), greedy(random_ids(kSeed + 1, kWindow), 8, 20),
          greedy(random_ids(kSeed + 2, 75), 8, 20)};
}

class Window : public testing::Test {
 protected:
  void SetUp() override {
    RecordProperty("seed", static_cast<int>(kSeed));
    TinyOptions tiny;
    tiny.seed = kSeed;
    write_tiny_hf(scratch_ / "full", tiny);
    tiny.window = kWindow;
    write_tiny_hf(scratch_ / "mistral", tiny);
    write_tiny_gguf(scratch_ / "mistral.gguf", tiny);
  }
  std::vector<Output> run(const std::string& model, const std::string& device, int world = 1,
                          int chunk = 0, int threads = 1) {
    GroupOptions options;
    options.device = device;
    options.world = world;
    options.threads = threads;
    auto group = RankGroup::open(scratch_ / model, options);
    EXPECT_TRUE(group.ok()) << group.status();
    if (!group.ok()) return {};
    auto outputs = generate(**group, prompts(), chunk);
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? *std::move(outputs) : std::vector<Output>();
  }
  // The sampled token and the best ones with their logprobs, of every prompt.
  static void expect_near(const std::vector<Output>& a, const std::vector<Output>& b, double step) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t p = 0; p < a.size(); ++p) {
      SCOPED_TRACE("prompt " + std::to_string(p));
      ASSERT_EQ(a[p].tokens, b[p].tokens);
      for (std::size_t i = 0; i < a[p].logprobs.size(); ++i) {
        for (std::size_t k = 0; k < a[p].logprobs[i].size(); ++k) {
          ASSERT_NEAR(a[p].logprobs[i][k].logprob, b[p].logprobs[i][k].logprob, step);
        }
      }
    }
  }
  ScratchFolder scratch_;
};

TEST_F(Window, CpuAgreesWithReference) {
  expect_near(run("mistral", "cpu"), run("mistral", "reference"), 1e-4);
}

TEST_F(Window, RanksAndChunksChangeNoBit) {
  const std::vector<Output> one = run("mistral", "cpu");
  for (const int world : {2, 3}) expect_near(run("mistral", "cpu", world), one, 0.0);
  for (const int chunk : {1, 17}) expect_near(run("mistral", "cpu", 1, chunk, 2), one, 0.0);
  const std::vector<Output> reference = run("mistral", "reference");
  for (const int world : {2, 3}) expect_near(run("mistral", "reference", world), reference, 0.0);
}

TEST_F(Window, TheGgufKeyMeansTheSame) {
  expect_near(run("mistral.gguf", "cpu"), run("mistral", "cpu"), 1e-4);
}

// Only what goes beyond the window differs from a model without one.
TEST_F(Window, AppliesFromItsLengthOn) {
  const std::vector<Output> full = run("full", "cpu"), window = run("mistral", "cpu");
  ASSERT_EQ(full.size(), 3u);
  ASSERT_EQ(window.size(), 3u);
  EXPECT_NE(full[0].logprobs[0][0].logprob, window[0].logprobs[0][0].logprob);
  EXPECT_EQ(full[1].logprobs[0][0].logprob, window[1].logprobs[0][0].logprob);  // one window long
  EXPECT_NE(full[1].logprobs[2][0].logprob, window[1].logprobs[2][0].logprob);
}

}  // namespace
}  // namespace quire::test
