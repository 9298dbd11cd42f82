// What penalties, biases and masks do to logits, by numbers worked out by hand; and that every
// backend picks from the adjusted logits and gives the logprobs of the others.
#include <cmath>
#include <limits>
#include <random>

#include "tests/kernels/harness.h"

namespace quire::test {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

std::vector<float> adjusted(std::vector<float> logits, const LogitAdjustment& adjustment) {
  adjust_logits(adjustment, absl::MakeSpan(logits));
  return logits;
}

using Floats = std::vector<float>;

TEST(Adjust, RepetitionDividesPositiveAndMultipliesNegativeLogits) {
  const std::vector<LogitEntry> entries = {{0, 0.0f, 0}, {1, 0.0f, 3}, {3, 0.0f, 0}};
  EXPECT_EQ(adjusted({3.0f, -3.0f, 5.0f, 0.0f}, {entries, nullptr, 1.5f, 0.0f, 0.0f}),
            Floats({2.0f, -4.5f, 5.0f, 0.0f}));
}

TEST(Adjust, FrequencyCountsThePresenceOfOutputOnce) {
  // In the prompt only, once in the output, four times in the output.
  const std::vector<LogitEntry> entries = {{0, 0.0f, 0}, {1, 0.0f, 1}, {2, 0.0f, 4}};
  EXPECT_EQ(adjusted({1.0f, 1.0f, 1.0f, 1.0f}, {entries, nullptr, 1.0f, 0.5f, 0.0f}),
            Floats({1.0f, 0.5f, -1.0f, 1.0f}));
  EXPECT_EQ(adjusted({1.0f, 1.0f, 1.0f, 1.0f}, {entries, nullptr, 1.0f, 0.0f, 1.5f}),
            Floats({1.0f, -0.5f, -0.5f, 1.0f}));
  EXPECT_EQ(adjusted({1.0f, 1.0f, 1.0f, 1.0f}, {entries, nullptr, 1.0f, -0.25f, -1.0f}),
            Floats({1.0f, 2.25f, 3.0f, 1.0f}));
}

TEST(Adjust, MaskThenBiasThenRepetitionThenFrequencyThenPresence) {
  // id 0: (3 + 1) / 2 - 2 * 0.5 - 0.25; were the penalties first it would be 1.25.
  // id 1: -1 + 3 is positive by its bias, so it is divided.
  // id 2: forbidden, whatever else. id 3: banned by its bias. id 33: in another word of the mask.
  const std::vector<LogitEntry> entries = {
      {0, 1.0f, 2}, {1, 3.0f, 0}, {2, 100.0f, 1}, {3, kMinusInfinity, 1}, {33, 1.0f, -1}};
  std::vector<float> logits(34, 1.0f);
  logits[0] = 3.0f;
  logits[1] = -1.0f;
  const std::uint32_t allowed[] = {0b1011u, 0b10u};
  const Floats got = adjusted(logits, {entries, allowed, 2.0f, 0.5f, 0.25f});
  Floats want(34, kMinusInfinity);
  want[0] = 0.75f;
  want[1] = 1.0f;
  want[33] = 2.0f;
  EXPECT_EQ(got, want);
}

TEST(Adjust, NothingOfItIsTheIdentity) {
  const auto logits = random_floats(100, 4, 3.0f);
  const std::vector<LogitEntry> entries = {{7, 0.0f, 0}, {8, 0.0f, 5}, {99, 0.0f, -1}};
  EXPECT_EQ(adjusted(logits, {entries, nullptr, 1.0f, 0.0f, 0.0f}), logits);
}

RowResult sample(Device& device, const std::vector<float>& logits, const SampleRow& row,
                 TokenId cut) {
  const float* const pieces[] = {logits.data(), logits.data() + cut};
  const std::size_t strides[] = {0, 0};
  const TokenId begin[] = {0, cut, static_cast<TokenId>(logits.size())};
  RowResult result;
  SampleArgs args;
  args.num_rows = 1;
  args.rows = absl::MakeConstSpan(&row, 1);
  args.pieces = pieces;
  args.piece_strides = strides;
  args.piece_begin = begin;
  args.results = &result;
  device.ops().sample(args);
  EXPECT_TRUE(device.wait().ok());
  return result;
}

void expect_equal(const RowResult& a, const RowResult& b, const std::string& what) {
  EXPECT_EQ(a.token, b.token) << what;
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size()) << what;
  for (std::size_t i = 0; i < a.logprobs.size(); ++i) {
    EXPECT_EQ(a.logprobs[i].token, b.logprobs[i].token) << what;
    EXPECT_EQ(a.logprobs[i].logprob, b.logprobs[i].logprob) << what;
  }
}

// A row with an adjustment picks as a plain row of adjusted logits would, to the bit; its logprobs
// are a plain row's of the logits.
TEST(Adjust, EveryBackendPicksFromAdjustedLogits) {
  constexpr int kVocab = 3001;
  std::mt19937 random(20261123);
  std::vector<std::string> backends = cpu_backends();
  backends.push_back("reference");
  for (int round = 0; round < 60; ++round) {
    const auto logits = random_floats(kVocab, 70 + static_cast<std::uint32_t>(round), 2.0f);
    std::vector<LogitEntry> entries;
    for (TokenId id = static_cast<TokenId>(random() % 9); id < kVocab;
         id += 1 + static_cast<TokenId>(random() % 40)) {
      entries.push_back({id, static_cast<float>(random() % 7) - 3.0f,
                         static_cast<std::int32_t>(random() % 4) - 1});
    }
    std::vector<std::uint32_t> allowed(allowed_words(kVocab));
    for (std::uint32_t& word : allowed) word = random() & random();
    const LogitAdjustment adjustment = {entries, round % 2 == 0 ? allowed.data() : nullptr, 1.3f,
                                        0.4f, 0.6f};
    SampleRow row = {.temperature = round % 3 == 0 ? 0.0f : 0.9f,
                     .top_p = round % 4 == 0 ? 0.8f : 1.0f,
                     .top_k = round % 5 == 0 ? 20 : 0,
                     .seed = random(),
                     .num_logprobs = 4};
    SampleRow plain = row;
    row.adjustment = &adjustment;
    const Floats changed = adjusted(logits, adjustment);
    TokenId first = -1;
    for (const std::string& name : backends) {
      const auto device = open_backend(name);
      RowResult want = sample(*device, logits, plain, 1024);
      want.token = sample(*device, changed, plain, 1024).token;
      const RowResult got = sample(*device, logits, row, 1024);
      want.logprobs[0] = got.logprobs[0];
      expect_equal(got, want, name + " round " + std::to_string(round));
      EXPECT_EQ(got.logprobs[0].token, got.token);
      if (first < 0) first = got.token;
      EXPECT_EQ(got.token, first) << name << " round " << round;
      // The pick's logprob is on the same scale as those of the best ids.
      const auto of = [&](TokenId id) { return logits[static_cast<std::size_t>(id)]; };
      EXPECT_NEAR(got.logprobs[0].logprob - got.logprobs[1].logprob,
                  of(got.token) - of(got.logprobs[1].token), 1e-5);
    }
  }
}

}  // namespace
}  // namespace quire::test
