// Small checkpoints against their fp32 goldens (transformers, eager attention): class A. The
// program that links this brings golden_cases().
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "nlohmann/json.hpp"
#include "tests/test_data.h"
#include "tests/worker/golden_cases.h"
#include "tests/worker/harness.h"

namespace quire::test {
namespace {

class Golden : public testing::TestWithParam<GoldenCase> {};

// Greedy token ids and the logprobs of the five best, until the first step whose two best are too
// close to tell apart.
TEST_P(Golden, GreedyTokensAndLogprobs) {
  const GoldenCase& param = GetParam();
  const std::filesystem::path root = data_root() / "data/models";
  const std::filesystem::path golden_path = root / param.folder / "golden.json";
  QUIRE_NEED_DATA(golden_path);
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(golden_path));
  GroupOptions options;
  options.device = param.device;
  options.world = param.world;
  options.open_device = param.open_device;
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

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::ValuesIn(golden_cases()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace quire::test
