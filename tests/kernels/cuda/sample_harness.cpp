#include "tests/kernels/cuda/sample_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>

#include "kernels/cuda/sample/input.h"
#include "kernels/reference/ops.h"
#include "tests/cuda_emulation/device_array.h"

namespace quire::test {

using cuda::SampledRow;
using cuda_emulation::DeviceArray;

cuda::SampleWish wish_of(const SampleRow& row) {
  return {row.temperature, row.top_p,        row.min_p,    row.top_k,
          row.seed,        row.sample_index, row.position, row.num_logprobs};
}

std::vector<SampledRow> cuda_sample(const std::vector<std::vector<float>>& logits,
                                    const std::vector<SampleRow>& rows, const Way& way) {
  const auto vocab = static_cast<TokenId>(logits[0].size());
  std::vector<TokenId> begins = way.begins;
  if (begins.empty()) begins = {0, vocab};
  cuda::SampleShape shape = cuda::sample_shape(rows, vocab);
  shape.adjusts += way.spare;
  shape.entries += way.spare;
  shape.masks += way.spare;
  std::vector<std::byte> input(cuda::sample_input_bytes(shape));
  cuda::write_sample_input(rows, shape, input.data());
  DeviceArray<std::byte> device_input(input);
  DeviceArray<std::byte> adjusted(cuda::adjusted_bytes(shape.adjusts, vocab));
  DeviceArray<SampledRow> out(rows.size());
  const int count = static_cast<int>(rows.size());
  DeviceArray<std::byte> workspace(cuda::sample_workspace_bytes(count, vocab));
  cuda::SampleJob job;
  cuda::use_sample_input(shape, device_input.data(), job);
  job.adjusted = reinterpret_cast<float*>(adjusted.data());
  job.num_pieces = static_cast<int>(begins.size()) - 1;
  job.out = out.data();
  job.workspace = workspace.data();
  job.may_filter = way.may_filter;
  std::vector<std::unique_ptr<DeviceArray<float>>> pieces;
  for (std::size_t p = 0; p + 1 < begins.size(); ++p) {
    std::vector<float> piece(static_cast<std::size_t>(way.shift));
    for (const std::vector<float>& row : logits) {
      piece.insert(piece.end(), row.begin() + begins[p], row.begin() + begins[p + 1]);
    }
    pieces.push_back(std::make_unique<DeviceArray<float>>(piece));
    job.pieces[p] = pieces.back()->data() + way.shift;
    job.strides[p] = way.stride ? static_cast<std::size_t>(begins[p + 1] - begins[p]) : 0;
  }
  std::copy(begins.begin(), begins.end(), job.begin);
  EXPECT_EQ(cuda::sample(nullptr, job), cudaSuccess);
  return out.get();
}

std::vector<SampledRow> cuda_sample(const std::vector<float>& logits,
                                    const std::vector<SampleRow>& rows, Way way) {
  way.stride = false;
  return cuda_sample(std::vector<std::vector<float>>{logits}, rows, way);
}

std::string describe(const SampleRow& r) {
  std::ostringstream text;
  text << "temperature " << r.temperature << " top_p " << r.top_p << " top_k " << r.top_k
       << " min_p " << r.min_p << " seed " << r.seed << " sample " << r.sample_index << " position "
       << r.position << " logprobs " << r.num_logprobs;
  if (r.adjustment != nullptr) text << " adjusted at " << r.adjustment->entries.size() << " ids";
  return text.str();
}

void expect_like_reference(const std::vector<float>& logits, const SampleRow& row,
                           const SampledRow& got) {
  RowResult want;
  reference::sample_row(row, logits, want);
  ASSERT_EQ(got.token, want.token) << describe(row);
  if (row.num_logprobs < 0) {
    ASSERT_EQ(got.num_best, 0);
    return;
  }
  ASSERT_NEAR(got.token_logprob, want.logprobs[0].logprob, 1e-5) << describe(row);
  ASSERT_EQ(static_cast<std::size_t>(got.num_best) + 1, want.logprobs.size()) << describe(row);
  for (int i = 0; i < got.num_best; ++i) {
    const TokenLogprob& best = want.logprobs[static_cast<std::size_t>(i) + 1];
    ASSERT_EQ(got.best[i], best.token) << describe(row);
    ASSERT_NEAR(got.best_logprob[i], best.logprob, 1e-5) << describe(row);
  }
}

void expect_all_like_reference(const std::vector<float>& logits, const std::vector<SampleRow>& rows,
                               const Way& way) {
  const std::vector<SampledRow> got = cuda_sample(logits, rows, way);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    expect_like_reference(logits, rows[i], got[i]);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

void expect_same(const SampledRow& a, const SampledRow& b) {
  ASSERT_EQ(a.token, b.token);
  ASSERT_EQ(std::memcmp(&a.token_logprob, &b.token_logprob, 4), 0);
  ASSERT_EQ(a.num_best, b.num_best);
  for (int i = 0; i < a.num_best; ++i) {
    ASSERT_EQ(a.best[i], b.best[i]);
    ASSERT_EQ(a.best_logprob[i], b.best_logprob[i]);
  }
}

std::vector<SampleRow> assorted_rows(int count, std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto any = [&random](std::initializer_list<float> values) {
    return *(values.begin() + random() % values.size());
  };
  std::vector<SampleRow> rows(static_cast<std::size_t>(count));
  for (SampleRow& row : rows) {
    row.temperature = any({0.0f, 0.02f, 0.3f, 0.7f, 1.0f, 1.0f, 2.0f});
    row.top_p = any({1.0f, 1.0f, 0.95f, 0.9f, 0.5f, 0.01f, 1e-7f});
    row.top_k = static_cast<int>(any({0, -1, 1, 2, 40, 300, 1000, 100000}));
    row.min_p = any({0.0f, 0.0f, 0.001f, 0.05f, 0.3f, 1.0f});
    row.seed = (static_cast<std::uint64_t>(random()) << 32) | random();
    row.sample_index = random() % 8;
    row.position = random() % 5000;
    row.num_logprobs = static_cast<int>(any({-1, -1, 0, 5, 20}));
  }
  return rows;
}

}  // namespace quire::test
