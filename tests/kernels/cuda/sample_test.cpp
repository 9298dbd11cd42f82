// Sampling on the device over the emulation: the token of every row is the reference's, whatever
// the filters, the ties and the pass that ends the row; logprobs are the reference's up to
// rounding; and neither cuts of the vocabulary, nor addresses, nor neighbours, nor orders of
// threads, nor old bytes in the workspace change a bit.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/kernels/cuda/sample_harness.h"
#include "tests/kernels/harness.h"

namespace quire::test {
namespace {

using cuda::SampledRow;
using cuda_emulation::DeviceArray;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::uint64_t kSeeds[] = {1, 20261123, 77};

// Rows with these filters and many draws.
std::vector<SampleRow> draws(SampleRow row, int count) {
  std::vector<SampleRow> rows(static_cast<std::size_t>(count), row);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].seed = 0x123456789abcull * (i + 1);
  return rows;
}

std::vector<float> rounded(std::vector<float> logits, float step) {
  for (float& x : logits) x = std::round(x / step) * step;
  return logits;
}

TEST(CudaSample, PicksWhatTheReferencePicks) {
  std::uint32_t seed = 100;
  for (const int vocab : {1, 2, 15, 50, 1023, 1024, 1025, 3000}) {
    const auto size = static_cast<std::size_t>(vocab);
    for (const float spread : {2.5f, 8.0f}) {
      SCOPED_TRACE("vocabulary " + std::to_string(vocab) + ", seed " + std::to_string(++seed));
      cuda_emulation::set_seed(seed);
      expect_all_like_reference(random_floats(size, seed, spread), assorted_rows(120, seed));
      expect_all_like_reference(rounded(random_floats(size, seed, spread), 0.5f),
                                assorted_rows(120, seed + 1000));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaSample, PicksWhatTheReferencePicksFromLargeVocabularies) {
  std::uint32_t seed = 300;
  for (const int vocab : {32000, 50257, 128256}) {
    const auto size = static_cast<std::size_t>(vocab);
    for (const float spread : {0.5f, 3.0f}) {
      SCOPED_TRACE("vocabulary " + std::to_string(vocab) + ", seed " + std::to_string(++seed));
      cuda_emulation::set_seed(seed);
      expect_all_like_reference(random_floats(size, seed, spread), assorted_rows(12, seed));
      if (HasFatalFailure()) return;
    }
  }
}

// More ids at the cut than are listed: ties, and wide rows.
TEST(CudaSample, PicksWhatTheReferencePicksWhereMoreIdsTieThanAListHolds) {
  constexpr int kVocab = 12000;
  std::vector<std::vector<float>> all;
  all.emplace_back(kVocab, 1.5f);
  all.push_back(rounded(random_floats(kVocab, 5, 1.0f), 2.0f));  // three values or so
  all.push_back(rounded(random_floats(kVocab, 6, 2.0f), 0.25f));
  all.push_back(random_floats(kVocab, 7, 0.01f));  // one bin or two
  all.push_back(all[0]);
  all.back()[77] = 9.0f;
  for (const std::vector<float>& logits : all) {
    std::vector<SampleRow> rows;
    for (const SampleRow& row :
         {SampleRow{.top_p = 0.5f}, SampleRow{.top_p = 0.9f}, SampleRow{.top_k = 10},
          SampleRow{.top_k = 7000}, SampleRow{.top_p = 0.9f, .top_k = 11000},
          SampleRow{.top_p = 0.3f, .top_k = 5}, SampleRow{.top_p = 0.99f, .min_p = 0.2f},
          SampleRow{.min_p = 1e-4f}, SampleRow{.temperature = 2.0f, .top_p = 0.999f},
          SampleRow{.temperature = 0.1f, .top_p = 0.8f, .top_k = 9000, .min_p = 0.01f}}) {
      for (const SampleRow& drawn : draws(row, 4)) rows.push_back(drawn);
    }
    cuda_emulation::set_seed(kVocab);
    expect_all_like_reference(logits, rows);
    if (HasFatalFailure()) return;
  }
}

TEST(CudaSample, DrawsOfManySeedsAreTheReferences) {
  const std::vector<float> logits = random_floats(2100, 9, 1.0f);
  cuda_emulation::set_seed(5);
  expect_all_like_reference(logits, draws({.num_logprobs = 0}, 700));
  expect_all_like_reference(logits, draws({.top_p = 0.9f}, 500));
  std::vector<SampleRow> rows = draws({}, 300);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].position = static_cast<std::uint32_t>(0xfffffff0u + i);  // wraps
    rows[i].sample_index = static_cast<std::uint32_t>(7 * i);
  }
  expect_all_like_reference(logits, rows, {.may_filter = false});
}

TEST(CudaSample, GreedyTakesTheLargestAndThenTheLowestId) {
  const std::vector<SampleRow> greedy = {{.temperature = 0.0f}};
  for (const bool may_filter : {false, true}) {
    const Way way = {.may_filter = may_filter};
    std::vector<float> logits(3000, -1.0f);
    EXPECT_EQ(cuda_sample(logits, greedy, way)[0].token, 0);
    logits[2999] = 4.0f;
    EXPECT_EQ(cuda_sample(logits, greedy, way)[0].token, 2999);
    logits[1777] = 4.0f;
    logits[1030] = 4.0f;
    EXPECT_EQ(cuda_sample(logits, greedy, way)[0].token, 1030);
    logits[5] = -kInfinity;
    EXPECT_EQ(cuda_sample(logits, greedy, way)[0].token, 1030);
    // -0 and +0 are equal.
    std::vector<float> zeros(2000, -2.0f);
    zeros[70] = -0.0f;
    zeros[1500] = 0.0f;
    EXPECT_EQ(cuda_sample(zeros, greedy, way)[0].token, 70);
    std::swap(zeros[70], zeros[1500]);
    EXPECT_EQ(cuda_sample(zeros, greedy, way)[0].token, 70);
  }
}

TEST(CudaSample, InfiniteLogitsArePickedOrNever) {
  std::vector<float> logits = random_floats(2500, 8);
  for (std::size_t i = 0; i < logits.size(); i += 2) logits[i] = -kInfinity;
  for (std::size_t i = 1024; i < 2048; ++i) logits[i] = -kInfinity;  // a whole segment
  expect_all_like_reference(logits, assorted_rows(150, 4));
  std::vector<SampleRow> rows = draws({}, 10);
  for (const SampleRow& row : draws({.top_p = 0.9f}, 10)) rows.push_back(row);
  const std::vector<float> nothing(2500, -kInfinity);
  for (const SampledRow& row : cuda_sample(nothing, rows)) EXPECT_EQ(row.token, 0);
  logits[2047] = kInfinity;
  for (const SampledRow& row : cuda_sample(logits, rows)) EXPECT_EQ(row.token, 2047);
}

TEST(CudaSample, NanLogitsCountAsMinusInfinity) {
  std::vector<float> logits = random_floats(2500, 18);
  std::vector<float> clean = logits;
  for (std::size_t i = 0; i < logits.size(); i += 3) {
    logits[i] = std::numeric_limits<float>::quiet_NaN();
    clean[i] = -kInfinity;
  }
  const auto rows = assorted_rows(60, 14);
  const auto got = cuda_sample(logits, rows), want = cuda_sample(clean, rows);
  for (std::size_t i = 0; i < rows.size(); ++i) expect_same(got[i], want[i]);
}

TEST(CudaSample, TopKKeepsTiesAndTopPAtLeastOne) {
  const std::vector<float> logits = {0.0f, 2.0f, 2.0f, 2.0f, 1.0f};
  std::vector<int> counts(logits.size());
  for (const SampledRow& row : cuda_sample(logits, draws({.top_k = 2}, 200))) {
    ++counts[static_cast<std::size_t>(row.token)];
  }
  EXPECT_EQ(counts[0] + counts[4], 0);
  EXPECT_GT(std::min({counts[1], counts[2], counts[3]}), 0);
  for (const SampledRow& row : cuda_sample(logits, draws({.top_p = 1e-6f}, 50))) {
    ASSERT_EQ(row.token, 1);
  }
}

TEST(CudaSample, CutsAddressesNeighboursOrdersAndOldBytesChangeNoBit) {
  constexpr int kVocab = 9000;
  const std::vector<float> logits = random_floats(kVocab, 78, 1.2f);
  auto rows = assorted_rows(40, 3);
  for (std::size_t i = 0; i < rows.size(); ++i) {  // rows of every pass
    if (i % 8 == 0) rows[i] = {.top_p = 0.99f, .seed = i, .num_logprobs = 3};
    if (i % 8 == 1) rows[i] = {.top_k = 6000, .seed = i};
    if (i % 8 == 2) rows[i] = {.seed = i, .num_logprobs = 20};
  }
  cuda_emulation::set_seed(1);
  const auto base = cuda_sample(logits, rows);
  const std::vector<Way> ways = {{.begins = {0, 1024, kVocab}},
                                 {.begins = {0, 2048, 2048, 3072, kVocab}, .shift = 1},
                                 {.begins = {0, 1, 7, 1500, 1501, 8999, kVocab}},
                                 {.begins = {0, 0, kVocab, kVocab}, .shift = 3},
                                 {.shift = 2}};
  for (const std::uint64_t seed : kSeeds) {
    cuda_emulation::set_seed(seed);
    for (const Way& way : ways) {
      const auto got = cuda_sample(logits, rows, way);
      for (std::size_t i = 0; i < rows.size(); ++i) expect_same(got[i], base[i]);
      if (HasFatalFailure()) return;
    }
    for (std::size_t i = seed % 5; i < rows.size(); i += 5) {
      expect_same(cuda_sample(logits, {rows[i]})[0], base[i]);
    }
  }
}

TEST(CudaSample, EveryRowHasItsOwnLogits) {
  constexpr int kVocab = 2300;
  const auto rows = assorted_rows(30, 33);
  std::vector<std::vector<float>> logits;
  for (std::uint32_t b = 0; b < rows.size(); ++b) {
    logits.push_back(random_floats(kVocab, 900 + b, 2.0f));
  }
  for (const Way& way : {Way{}, Way{.begins = {0, 1024, kVocab}}, Way{.begins = {0, 77, kVocab}}}) {
    const auto got = cuda_sample(logits, rows, way);
    for (std::size_t i = 0; i < rows.size(); ++i) expect_like_reference(logits[i], rows[i], got[i]);
  }
}

TEST(CudaSample, AWorkspaceServesCallsOfFewerRowsAfterCallsOfMore) {
  constexpr int kVocab = 5000, kRows = 12;
  const std::vector<float> values = random_floats(kVocab, 41, 2.0f);
  DeviceArray<float> logits(values);
  DeviceArray<std::byte> workspace(cuda::sample_workspace_bytes(kRows, kVocab));
  for (const int count : {12, 3, 7, 1, 12}) {
    const auto rows = assorted_rows(count, static_cast<std::uint32_t>(count));
    std::vector<cuda::SampleWish> wishes;
    for (const SampleRow& row : rows) wishes.push_back(wish_of(row));
    DeviceArray<cuda::SampleWish> device_wishes(wishes);
    DeviceArray<SampledRow> out(rows.size());
    cuda::SampleJob job;
    job.num_rows = count;
    job.rows = device_wishes.data();
    job.num_pieces = 1;
    job.pieces[0] = logits.data();
    job.begin[1] = kVocab;
    job.out = out.data();
    job.workspace = workspace.data();
    ASSERT_EQ(cuda::sample(nullptr, job), cudaSuccess);
    const auto got = out.get();
    for (std::size_t i = 0; i < rows.size(); ++i) expect_like_reference(values, rows[i], got[i]);
  }
}

TEST(CudaSample, VocabulariesThatCannotBeAreRefused) {
  cuda::SampleJob job;
  job.num_rows = 1;
  EXPECT_EQ(cuda::sample(nullptr, job), cudaErrorInvalidValue);  // no pieces
  job.num_pieces = 1;
  EXPECT_EQ(cuda::sample(nullptr, job), cudaErrorInvalidValue);  // no ids
  job.begin[1] = cuda::kMaxSampleVocab + 1;
  EXPECT_EQ(cuda::sample(nullptr, job), cudaErrorInvalidValue);
  job.begin[0] = 5;
  job.begin[1] = 10;
  EXPECT_EQ(cuda::sample(nullptr, job), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace quire::test
