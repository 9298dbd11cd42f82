// Adjusted rows over the emulation: picks as the reference's with penalties, biases, bans and
// masks, logprobs of the logits as they are; logits and other rows are left alone; room that a
// launch does not use changes nothing.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "tests/cuda_emulation/control.h"
#include "tests/kernels/cuda/sample_harness.h"
#include "tests/kernels/harness.h"

namespace quire::test {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// An adjustment and what it points at.
struct Adjusted {
  std::vector<LogitEntry> entries;
  std::vector<std::uint32_t> allowed;
  LogitAdjustment adjustment;
};

// Of all kinds: none to thousands of entries, penalties of both signs, bans, sparse and dense
// masks.
std::unique_ptr<Adjusted> random_adjustment(int vocab, std::mt19937& random) {
  const auto unit = [&random] { return static_cast<float>(random() >> 8) * 0x1p-24f; };
  auto out = std::make_unique<Adjusted>();
  const float density = std::vector<float>{0.0f, 0.001f, 0.05f, 0.9f}[random() % 4];
  for (TokenId id = 0; id < vocab; ++id) {
    if (unit() >= density) continue;
    const float bias = random() % 3 == 0 ? 10.0f * unit() - 5.0f : 0.0f;
    out->entries.push_back(
        {id, random() % 50 == 0 ? kMinusInfinity : bias, static_cast<int>(random() % 6) - 1});
  }
  if (random() % 2 == 0) {
    const float allowed_share = random() % 2 == 0 ? 0.02f : 0.7f;
    out->allowed.resize(allowed_words(vocab));
    for (TokenId id = 0; id < vocab; ++id) {
      const bool allowed = unit() < allowed_share || id == vocab / 2;
      out->allowed[static_cast<std::size_t>(id / 32)] |= (allowed ? 1u : 0u) << (id % 32);
    }
  }
  out->adjustment = {out->entries, out->allowed.empty() ? nullptr : out->allowed.data(),
                     0.5f + 1.5f * unit(), 4.0f * unit() - 2.0f, 4.0f * unit() - 2.0f};
  return out;
}

struct Rows {
  std::vector<SampleRow> rows;
  std::vector<std::unique_ptr<Adjusted>> adjustments;
};

// Every third row is not adjusted.
Rows adjusted_rows(int vocab, int count, std::uint32_t seed) {
  std::mt19937 random(seed);
  Rows out{assorted_rows(count, seed), {}};
  for (std::size_t i = 0; i < out.rows.size(); ++i) {
    if (i % 3 == 2) continue;
    out.adjustments.push_back(random_adjustment(vocab, random));
    out.rows[i].adjustment = &out.adjustments.back()->adjustment;
  }
  return out;
}

TEST(CudaSampleAdjust, PicksWhatTheReferencePicks) {
  std::uint32_t seed = 500;
  for (const int vocab : {1, 31, 33, 1023, 1024, 1026, 3000, 9001}) {
    const auto logits = random_floats(static_cast<std::size_t>(vocab), ++seed, 2.5f);
    const Rows rows = adjusted_rows(vocab, 60, seed);
    for (const std::uint64_t order : {1, 77}) {
      cuda_emulation::set_seed(order);
      expect_all_like_reference(logits, rows.rows, {.spare = static_cast<int>(order % 5)});
      ASSERT_FALSE(HasFatalFailure()) << "vocabulary " << vocab << " seed " << seed;
    }
  }
}

// Greedy picks show single bits of the arithmetic: the reference's largest is the device's.
TEST(CudaSampleAdjust, ArithmeticIsTheReferencesToTheBit) {
  constexpr int kVocab = 2000;
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    // Many logits close to each other, so that a rounding decides.
    std::vector<float> logits = random_floats(kVocab, 900 + static_cast<std::uint32_t>(round));
    for (float& x : logits) x = 3.0f + x * 1e-5f;
    const auto adjusted = random_adjustment(kVocab, random);
    const SampleRow row = {.temperature = 0.0f, .adjustment = &adjusted->adjustment};
    expect_all_like_reference(logits, {row});
    if (HasFatalFailure()) return;
  }
}

TEST(CudaSampleAdjust, CutsAddressesNeighboursAndSpareRoomChangeNoBit) {
  constexpr int kVocab = 5003;
  const auto logits = random_floats(kVocab, 12, 1.5f);
  const Rows rows = adjusted_rows(kVocab, 24, 9);
  const auto base = cuda_sample(logits, rows.rows);
  const std::vector<Way> ways = {{.begins = {0, 1024, kVocab}},
                                 {.begins = {0, 7, 1500, 1501, kVocab}, .shift = 1},
                                 {.shift = 2, .spare = 9}};
  for (const Way& way : ways) {
    const auto got = cuda_sample(logits, rows.rows, way);
    for (std::size_t i = 0; i < base.size(); ++i) expect_same(got[i], base[i]);
    if (HasFatalFailure()) return;
  }
  for (std::size_t i = 0; i < base.size(); i += 5) {
    expect_same(cuda_sample(logits, {rows.rows[i]})[0], base[i]);
  }
}

TEST(CudaSampleAdjust, EveryRowHasItsOwnLogitsAndLogprobsAreOfThem) {
  constexpr int kVocab = 2300;
  Rows rows = adjusted_rows(kVocab, 12, 33);
  std::vector<std::vector<float>> logits;
  for (std::uint32_t b = 0; b < rows.rows.size(); ++b) {
    logits.push_back(random_floats(kVocab, 900 + b, 2.0f));
    rows.rows[b].num_logprobs = 3;
  }
  const auto got = cuda_sample(logits, rows.rows);
  for (std::size_t i = 0; i < got.size(); ++i) {
    expect_like_reference(logits[i], rows.rows[i], got[i]);
    SampleRow plain = rows.rows[i];
    plain.adjustment = nullptr;
    const auto raw = cuda_sample(logits[i], {plain})[0];
    ASSERT_EQ(got[i].num_best, raw.num_best);
    for (int k = 0; k < raw.num_best; ++k) {
      EXPECT_EQ(got[i].best[k], raw.best[k]);
      EXPECT_EQ(got[i].best_logprob[k], raw.best_logprob[k]);
    }
  }
}

}  // namespace
}  // namespace quire::test
