// Every field at its edges, one step beyond them, and at NaN and infinity.
#include "common/sampling_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace quire {
namespace {

using ::testing::HasSubstr;

constexpr int kVocab = 100;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Case {
  const char* field;
  std::function<void(SamplingParams&)> set;
};

TEST(SamplingParamsTest, DefaultsAndEdgesAreValid) {
  const std::function<void(SamplingParams&)> edges[] = {
      [](SamplingParams&) {},
      [](SamplingParams& p) { p.temperature = 0.0f; },
      [](SamplingParams& p) { p.temperature = 2.0f; },
      [](SamplingParams& p) { p.top_p = 1e-6f; },
      [](SamplingParams& p) { p.top_k = -1; },
      [](SamplingParams& p) { p.top_k = 1 << 30; },
      [](SamplingParams& p) { p.min_p = 1.0f; },
      [](SamplingParams& p) { p.max_tokens = 1; },
      [](SamplingParams& p) { p.logprobs = kMaxLogprobs; },
      [](SamplingParams& p) {
        p.stop_token_ids = {0, kVocab - 1};
      },
      [](SamplingParams& p) { p.presence_penalty = -2.0f; },
      [](SamplingParams& p) { p.frequency_penalty = 2.0f; },
      [](SamplingParams& p) { p.repetition_penalty = 0.01f; },
      [](SamplingParams& p) { p.repetition_penalty = 100.0f; },
      [](SamplingParams& p) { p.min_tokens = 1 << 30; },
      [](SamplingParams& p) {
        p.logit_bias = {{kVocab - 1, -100.0f}, {0, 100.0f}};
      },
      [](SamplingParams& p) { p.allowed_token_ids.assign(kVocab, kVocab - 1); },
  };
  for (const auto& set : edges) {
    SamplingParams params;
    set(params);
    EXPECT_TRUE(validate(params, kVocab).ok()) << validate(params, kVocab);
  }
}

TEST(SamplingParamsTest, EachBadFieldIsNamed) {
  const Case cases[] = {
      {"temperature", [](SamplingParams& p) { p.temperature = -0.1f; }},
      {"temperature", [](SamplingParams& p) { p.temperature = 2.01f; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kNan; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kInf; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 0.0f; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 1.1f; }},
      {"top_p", [](SamplingParams& p) { p.top_p = kNan; }},
      {"top_k", [](SamplingParams& p) { p.top_k = -2; }},
      {"min_p", [](SamplingParams& p) { p.min_p = -0.5f; }},
      {"min_p", [](SamplingParams& p) { p.min_p = kInf; }},
      {"min_p", [](SamplingParams& p) { p.min_p = kNan; }},
      {"max_tokens", [](SamplingParams& p) { p.max_tokens = 0; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = kMaxLogprobs + 1; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = -2; }},
      {"stop_token_ids",
       [](SamplingParams& p) {
         p.stop_token_ids = {1, -1};
       }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {kVocab}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids.assign(65, 1); }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = 2.01f; }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = kNan; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = -1e9f; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = kInf; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 0.0f; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = -1.0f; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 101.0f; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = kNan; }},
      {"min_tokens", [](SamplingParams& p) { p.min_tokens = -1; }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{kVocab, 1.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{-1, 1.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{5, 100.5f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{5, kNan}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{5, 1.0f}, {6, 1.0f}, {5, 2.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias.assign(301, {1, 1.0f});
       }},
      {"allowed_token_ids",
       [](SamplingParams& p) {
         p.allowed_token_ids = {1, kVocab};
       }},
      {"allowed_token_ids", [](SamplingParams& p) { p.allowed_token_ids.assign(kVocab + 1, 1); }},
  };
  for (const Case& c : cases) {
    SamplingParams params;
    c.set(params);
    const absl::Status status = validate(params, kVocab);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr("`" + std::string(c.field) + "`"));
  }
}

TEST(SamplingParamsTest, MessageHasValueAndRange) {
  SamplingParams params;
  params.temperature = 3.5f;
  EXPECT_EQ(validate(params, kVocab).message(), "`temperature` is 3.5, but must be in [0, 2].");
}

TEST(SamplingParamsTest, AllowedIdsAreFewerThanALargeVocabulary) {
  SamplingParams params;
  params.allowed_token_ids.assign(kMaxAllowedTokenIds, 7);
  EXPECT_TRUE(validate(params, 128256).ok());
  params.allowed_token_ids.push_back(8);
  EXPECT_THAT(std::string(validate(params, 128256).message()),
              ::testing::HasSubstr("allowed_token_ids"));
}

}  // namespace
}  // namespace quire
