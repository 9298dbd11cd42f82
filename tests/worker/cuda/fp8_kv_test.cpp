// The whole worker with K and V in fp8: over the emulated GPU like the reference, near the fp32
// goldens, the same on any number of ranks; refused by the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "nlohmann/json.hpp"
#include "tests/test_data.h"
#include "tests/worker/cuda/emulated.h"
#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 843;

std::unique_ptr<RankGroup> open_group(const std::string& model, const std::string& device,
                                      const std::string& kv_dtype, int world = 1) {
  GroupOptions options;
  options.device = device;
  options.kv_dtype = kv_dtype;
  options.world = world;
  if (device == "cuda") options.open_device = open_emulated;
  auto group = RankGroup::open(model, options);
  EXPECT_TRUE(group.ok()) << group.status();
  return group.ok() ? *std::move(group) : nullptr;
}

Output answer(const std::string& model, const std::string& device, const std::string& kv_dtype,
              int world = 1) {
  const auto group = open_group(model, device, kv_dtype, world);
  if (group == nullptr) return {};
  const auto outputs = generate(*group, {greedy(random_ids(kSeed, 75), 4, 20)}, 33);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? (*outputs)[0] : Output();
}

// The largest difference among the logprobs of the first token, which both have in any case.
double difference(const Output& a, const Output& b) {
  double most = 0.0;
  for (const TokenLogprob& entry : a.logprobs[0]) {
    const double d = std::abs(static_cast<double>(entry.logprob) -
                              static_cast<double>(logprob_of(b.logprobs[0], entry.token)));
    if (!std::isinf(d)) most = std::max(most, d);
  }
  return most;
}

TEST(Fp8Kv, AGpuAnswersLikeTheReference) {
  RecordProperty("seed", static_cast<int>(kSeed));
  ScratchFolder scratch;
  TinyOptions tiny;
  tiny.seed = kSeed;
  write_tiny_gguf(scratch / "tiny.gguf", tiny);
  const std::string model = scratch / "tiny.gguf";
  const Output exact = answer(model, "reference", "auto");
  const Output reference = answer(model, "reference", "fp8");
  const Output gpu = answer(model, "cuda", "fp8");
  ASSERT_FALSE(exact.logprobs.empty() || reference.logprobs.empty() || gpu.logprobs.empty());
  const double rounding = difference(reference, exact), device = difference(gpu, reference);
  std::printf("fp8 against fp32 %.2e, GPU against reference %.2e\n", rounding, device);
  EXPECT_GT(rounding, 1e-3);  // it is fp8
  EXPECT_LT(rounding, 0.3);
  EXPECT_LT(device, 0.1 * rounding);
  for (const int world : {2, 3}) {
    const Output ranks = answer(model, "cuda", "fp8", world);
    EXPECT_EQ(ranks.tokens, gpu.tokens);
    EXPECT_LT(difference(ranks, gpu), 1e-4);
  }
}

// Small models feel the three bits of e4m3 far more than large ones do: heads of 8 and 16.
struct Limits {
  const char* folder;
  double mean, most;  // |d logprob| of the five best, before the answers part
};
class Fp8KvGolden : public testing::TestWithParam<Limits> {};

TEST_P(Fp8KvGolden, StaysNear) {
  const std::filesystem::path folder = data_root() / "data/models" / GetParam().folder;
  QUIRE_NEED_DATA(folder);
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(folder / "golden.json"));
  const auto group = open_group(folder, "cuda", "fp8");
  ASSERT_NE(group, nullptr);
  double sum = 0.0, most = 0.0;
  int compared = 0;
  for (const nlohmann::json& item : golden["cases"]) {
    const auto ids = item["prompt_ids"].get<std::vector<TokenId>>();
    const auto want = item["greedy_ids"].get<std::vector<TokenId>>();
    const int tokens = std::min<int>(8, static_cast<int>(want.size()));
    const auto got = generate(*group, {greedy(ids, tokens)});
    ASSERT_TRUE(got.ok()) << got.status();
    const Output& output = (*got)[0];
    for (std::size_t i = 0; i < output.tokens.size(); ++i) {
      for (const nlohmann::json& entry : item["steps"][i]["top"]) {
        const double ours =
            static_cast<double>(logprob_of(output.logprobs[i], entry[0].get<TokenId>()));
        const double d = std::abs(ours - entry[1].get<double>());
        if (std::isinf(d)) continue;
        sum += d;
        most = std::max(most, d);
        ++compared;
      }
      if (output.tokens[i] != want[i]) break;
    }
  }
  std::printf("%d logprobs, mean |d| %.2e, max %.2e\n", compared, sum / compared, most);
  EXPECT_GT(compared, 40);
  EXPECT_LT(sum / compared, GetParam().mean);
  EXPECT_LT(most, GetParam().most);
}

constexpr Limits kLimits[] = {{"stories260K/hf", 0.25, 2.0},
                              {"tiny-random/llama-rope3", 0.05, 0.25},
                              {"tiny-random/mistral-swa", 0.07, 0.3}};
INSTANTIATE_TEST_SUITE_P(Models, Fp8KvGolden, testing::ValuesIn(kLimits));

TEST(Fp8Kv, IsPartOfWhatRanksAgreeOn) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "tiny.gguf", {});
  const auto fp8 = open_group(scratch / "tiny.gguf", "cuda", "fp8");
  const auto other = open_group(scratch / "tiny.gguf", "cuda", "auto");
  ASSERT_TRUE(fp8 != nullptr && other != nullptr);
  EXPECT_NE(fp8->rank(0).numerics_id(), other->rank(0).numerics_id());
  EXPECT_NE(fp8->rank(0).layout_digest(16), other->rank(0).layout_digest(16));
  // Heads of 32: a byte an element and one a head, instead of four an element.
  EXPECT_EQ(fp8->rank(0).kv_block_bytes(16) * 128, other->rank(0).kv_block_bytes(16) * 33);
}

TEST(Fp8Kv, AGpuRefusesInt8) {
  DeviceOptions options;
  options.kind = "cuda";
  options.kv_dtype = "int8";
  EXPECT_THAT(std::string(open_emulated(options).status().message()),
              testing::HasSubstr("--kv-cache-dtype fp8"));
}

TEST(Fp8Kv, TheCpuRefusesIt) {
  DeviceOptions options;
  options.kind = "cpu";
  options.kv_dtype = "fp8";
  EXPECT_THAT(std::string(open_device(options).status().message()),
              testing::HasSubstr("--kv-cache-dtype int8"));
  options.kind = "reference";
  options.kv_dtype = "int4";
  EXPECT_THAT(std::string(open_device(options).status().message()), testing::HasSubstr("int4"));
}

}  // namespace
}  // namespace quire::test
