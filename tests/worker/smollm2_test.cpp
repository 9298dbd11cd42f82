// SmolLM2-135M-Instruct (Q4_1) teacher-forced along the fp32 goldens; the tolerances are those of
// reference/smollm2/README.md for the class of the arithmetic: A for fp32, C for 8-bit activations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "nlohmann/json.hpp"
#include "tests/test_data.h"
#include "tests/worker/harness.h"

namespace quire::test {
namespace {

struct Class {
  double mean, p99, max;   // |d logprob| of the golden tokens
  double kl_mean, kl_p99;  // KL over the five best + the rest, at most that over twenty
  double min_argmax;       // share of positions whose best token is the golden one
  double open_gap;         // where argmax differs, the golden's two best are closer than this
};
constexpr Class kClassA = {1e-4, 3e-4, 1e-3, 1e-6, 1e-5, 1.0, 1e-3};
constexpr Class kClassC = {0.031, 0.21, 0.36, 2.4e-3, 0.015, 0.97, 0.45};

struct Deviations {
  std::vector<double> golden;  // |d logprob| of the golden token, per position
  std::vector<double> kl;      // nats
  int positions = 0;
  int argmax = 0;
  double largest_open_gap = 0.0;
};

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double percentile99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(static_cast<double>(values.size() - 1) * 0.99)];
}

// KL(reference || ours) with one bucket for everything but the reference's five best.
double kl_of(const nlohmann::json& top5, const std::vector<TokenLogprob>& row) {
  double kl = 0.0, rest_reference = 1.0, rest_ours = 1.0;
  for (const nlohmann::json& entry : top5) {
    const double reference = entry[1].get<double>();
    const double ours =
        std::max(static_cast<double>(logprob_of(row, entry[0].get<TokenId>())), -30.0);
    kl += std::exp(reference) * (reference - ours);
    rest_reference -= std::exp(reference);
    rest_ours -= std::exp(ours);
  }
  if (rest_reference > 1e-6 && rest_ours > 1e-9) {
    kl += rest_reference * std::log(rest_reference / rest_ours);
  }
  return kl;
}

void compare(const nlohmann::json& item, const Output& output, Deviations& deviations) {
  const auto forced = item["output_ids"].get<std::vector<TokenId>>();
  for (std::size_t i = 0; i < forced.size(); ++i) {
    const double reference = item["logprobs"][i].get<double>();
    const double ours = static_cast<double>(logprob_of(output.logprobs[i], forced[i]));
    deviations.golden.push_back(std::abs(ours - reference));
    deviations.kl.push_back(kl_of(item["top5"][i], output.logprobs[i]));
    ++deviations.positions;
    if (output.tokens[i] == forced[i]) {
      ++deviations.argmax;
    } else {
      deviations.largest_open_gap =
          std::max(deviations.largest_open_gap, item["gap"][i].get<double>());
    }
  }
}

void expect_class(const Deviations& deviations, const Class& limits) {
  const double worst = *std::max_element(deviations.golden.begin(), deviations.golden.end());
  const double argmax = static_cast<double>(deviations.argmax) / deviations.positions;
  std::printf(
      "%d positions: |d| mean %.2e p99 %.2e max %.2e, KL mean %.2e p99 %.2e, argmax %.2f %%, "
      "largest gap of a flip %.3f\n",
      deviations.positions, mean(deviations.golden), percentile99(deviations.golden), worst,
      mean(deviations.kl), percentile99(deviations.kl), argmax * 100.0,
      deviations.largest_open_gap);
  EXPECT_LE(mean(deviations.golden), limits.mean);
  EXPECT_LE(percentile99(deviations.golden), limits.p99);
  EXPECT_LE(worst, limits.max);
  EXPECT_LE(mean(deviations.kl), limits.kl_mean);
  EXPECT_LE(percentile99(deviations.kl), limits.kl_p99);
  EXPECT_GE(argmax, limits.min_argmax);
  EXPECT_LE(deviations.largest_open_gap, limits.open_gap);
}

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    golden_path_ = data_root() / "reference/smollm2/golden.dev.json";
    if (std::filesystem::exists(golden_path_)) {
      items_ = nlohmann::json::parse(std::ifstream(golden_path_))["items"];
    }
  }
  static GroupOptions options(const char* dtype, int world) {
    GroupOptions options;
    options.device = "cpu";
    options.dtype = dtype;
    options.world = world;
    options.limits = {.num_blocks = 800,
                      .block_size = 16,
                      .max_num_seqs = 33,
                      .max_num_batched_tokens = 512,
                      .max_model_len = 2560};
    return options;
  }

  // The first `most` items whose prompt is at most `longest`.
  void teacher_forced(const GroupOptions& with, const Class& limits, std::size_t longest,
                      std::size_t most) {
    QUIRE_NEED_DATA(golden_path_);
    QUIRE_NEED_DATA(demo_model());
    auto group = RankGroup::open(demo_model(), with);
    ASSERT_TRUE(group.ok()) << group.status();
    std::vector<ForcedText> texts;
    std::vector<nlohmann::json> items;
    for (const nlohmann::json& item : items_) {
      if (item["prompt_ids"].size() > longest || items.size() >= most) continue;
      items.push_back(item);
      texts.push_back({item["prompt_ids"].get<std::vector<TokenId>>(),
                       item["output_ids"].get<std::vector<TokenId>>()});
    }
    const auto outputs = teacher_force(**group, texts);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    Deviations deviations;
    for (std::size_t i = 0; i < items.size(); ++i) compare(items[i], (*outputs)[i], deviations);
    expect_class(deviations, limits);
  }

  std::filesystem::path golden_path_;
  nlohmann::json items_;
};

TEST_F(SmolLm2, Fp32IsClassA) {
  teacher_forced(options("float32", 1), kClassA, 100, 6);
}

TEST_F(SmolLm2, EightBitActivationsAreClassC) {
  teacher_forced(options("auto", 1), kClassC, 4096, 100);
}

// Greedy text of several goldens, alone on one rank, is what two and three ranks give, and what
// comes out when all run at once: ids, and the bits of the logprobs.
TEST_F(SmolLm2, RanksAndBatchChangeNothing) {
  QUIRE_NEED_DATA(golden_path_);
  QUIRE_NEED_DATA(demo_model());
  std::vector<Prompt> prompts;
  for (const nlohmann::json& item : items_) {
    if (item["prompt_ids"].size() > 130) continue;
    prompts.push_back(greedy(item["prompt_ids"].get<std::vector<TokenId>>(), 12));
    if (prompts.size() == 6) break;
  }
  std::vector<Output> alone;
  {
    auto group = RankGroup::open(demo_model(), options("auto", 1));
    ASSERT_TRUE(group.ok()) << group.status();
    for (const Prompt& prompt : prompts) {
      const auto output = generate(**group, {prompt});
      ASSERT_TRUE(output.ok()) << output.status();
      alone.push_back((*output)[0]);
    }
  }
  for (const int world : {1, 2, 3}) {
    auto group = RankGroup::open(demo_model(), options("auto", world));
    ASSERT_TRUE(group.ok()) << group.status();
    const auto together = generate(**group, prompts, 50);
    ASSERT_TRUE(together.ok()) << together.status();
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      EXPECT_EQ((*together)[p].tokens, alone[p].tokens) << world << " ranks, prompt " << p;
      for (std::size_t i = 0; i < alone[p].logprobs.size(); ++i) {
        EXPECT_EQ((*together)[p].logprobs[i][0].logprob, alone[p].logprobs[i][0].logprob)
            << world << " ranks, prompt " << p << ", token " << i;
      }
    }
  }
}

}  // namespace
}  // namespace quire::test
