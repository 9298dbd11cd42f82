// Small checkpoints against their fp32 goldens (transformers, eager attention): class A.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "nlohmann/json.hpp"
#include "tests/test_data.h"
#include "tests/worker/harness.h"

namespace quire::test {
namespace {

struct Case {
  const char* name;
  const char* folder;  // under data/models: the golden is beside the HF checkpoint
  const char* model;   // what is opened
  const char* device;
  int world;
  double tolerance;  // |d logprob|
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

class Golden : public testing::TestWithParam<Case> {};

// Greedy token ids and the logprobs of the five best, until the first step whose two best are too
// close to tell apart.
TEST_P(Golden, GreedyTokensAndLogprobs) {
  const Case& param = GetParam();
  const std::filesystem::path root = data_root() / "data/models";
  const std::filesystem::path golden_path = root / param.folder / "golden.json";
  QUIRE_NEED_DATA(golden_path);
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(golden_path));
  GroupOptions options;
  options.device = param.device;
  options.world = param.world;
  auto group = RankGroup::open(root / param.model, options);
  ASSERT_TRUE(group.ok()) << group.status();
  double worst = 0.0;
  int compared = 0;
  for (const nlohmann::json& item : golden["cases"]) {
    const auto ids = item["prompt_ids"].get<std::vector<TokenId>>();
    const auto want = item["greedy_ids"].get<std::vector<TokenId>>();
    const auto got = generate(**group, {greedy(ids, static_cast<int>(want.size()))}, 7);
    ASSERT_TRUE(got.ok()) << got.status();
    for (std::size_t i = 0; i < want.size(); ++i) {
      const nlohmann::json& step = item["steps"][i];
      if (step["gap"].get<double>() < 5e-3) break;
      const Output& output = (*got)[0];
      ASSERT_EQ(output.tokens[i], want[i]) << item["prompt"] << " token " << i;
      for (const nlohmann::json& entry : step["top"]) {
        const double ours =
            static_cast<double>(logprob_of(output.logprobs[i], entry[0].get<TokenId>()));
        const double difference = std::abs(ours - entry[1].get<double>());
        // The fifth and sixth best may be nearly equal: then ours may name the other one.
        if (std::isinf(difference)) continue;
        EXPECT_LE(difference, param.tolerance) << item["prompt"] << " token " << i;
        worst = std::max(worst, difference);
        ++compared;
      }
    }
  }
  std::printf("%d logprobs, max |d| %.2e\n", compared, worst);
  EXPECT_GT(compared, 50);
}

constexpr Case kCases[] = {
    {"stories_gguf_reference", "stories260K/hf", "stories260K/stories260K.F32.gguf", "reference", 1,
     1e-3},
    {"stories_hf_reference", "stories260K/hf", "stories260K/hf", "reference", 1, 1e-3},
    {"stories_hf_reference_2", "stories260K/hf", "stories260K/hf", "reference", 2, 1e-3},
    {"stories_gguf_cpu", "stories260K/hf", "stories260K/stories260K.F32.gguf", "cpu", 1, 1e-3},
    {"stories_hf_cpu_3", "stories260K/hf", "stories260K/hf", "cpu", 3, 1e-3},
    {"rope3_reference", "tiny-random/llama-rope3", "tiny-random/llama-rope3", "reference", 1, 2e-3},
    {"rope3_cpu_2", "tiny-random/llama-rope3", "tiny-random/llama-rope3", "cpu", 2, 2e-3},
    {"yarn_bias_reference", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias",
     "reference", 1, 2e-3},
    {"yarn_bias_cpu", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias", "cpu", 1, 2e-3},
    {"yarn_bias_cpu_4", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias", "cpu", 4,
     2e-3},
};
INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace quire::test
