// Over which groups forks, drafts and beams are tested: one list for the CPU (plan_cases.cpp), one
// for the CUDA kernels over their emulation (../cuda/plan_cases.cpp).
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/worker/conductor.h"
#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {

struct PlanCase {
  std::string name;
  GroupOptions options;
};

inline void PrintTo(const PlanCase& c, std::ostream* out) {
  *out << c.name;
}

std::vector<PlanCase> plan_cases();

// A group over the project's own small model.
class PlanTest : public testing::TestWithParam<PlanCase> {
 protected:
  static constexpr std::uint64_t kSeed = 20261124;

  void SetUp() override {
    RecordProperty("seed", static_cast<int>(kSeed));
    TinyOptions tiny;
    tiny.seed = kSeed;
    write_tiny_gguf(scratch_ / "tiny.gguf", tiny);
    auto group = RankGroup::open(scratch_ / "tiny.gguf", GetParam().options);
    ASSERT_TRUE(group.ok()) << group.status();
    group_ = *std::move(group);
  }
  // Each prompt on its own, one token a step.
  std::vector<Output> plain(const std::vector<Prompt>& prompts) {
    std::vector<Output> outputs;
    for (const Prompt& prompt : prompts) {
      auto output = generate(*group_, {prompt});
      EXPECT_TRUE(output.ok()) << output.status();
      outputs.push_back(output.ok() ? (*output)[0] : Output());
    }
    return outputs;
  }
  // The emulation takes a second where the CPU takes a hundredth; the reference is slow on purpose.
  bool slow() const { return GetParam().options.device != "cpu"; }

  ScratchFolder scratch_;
  std::unique_ptr<RankGroup> group_;
};

// Drawn, with the sampled token's logprob and the 5 best.
inline Prompt drawn(std::vector<TokenId> ids, int max_tokens, std::uint64_t seed) {
  Prompt prompt = greedy(std::move(ids), max_tokens);
  prompt.params.temperature = 0.9f;
  prompt.params.top_p = 0.95f;
  prompt.params.seed = seed;
  return prompt;
}

inline std::string name_of_case(const testing::TestParamInfo<PlanCase>& info) {
  return info.param.name;
}

}  // namespace quire::test
