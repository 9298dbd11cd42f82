// Rows of sampling parameters, and logits in pieces of which some are empty.
#include "worker/sampler/sampler.h"

#include <gtest/gtest.h>

#include "kernels/device.h"

namespace quire {
namespace {

TEST(Sampler, RowCarriesTheKeyOfItsDraw) {
  SamplingParams params;
  params.temperature = 0.7f;
  params.top_p = 0.8f;
  params.top_k = 5;
  params.min_p = 0.1f;
  params.seed = 42;
  params.logprobs = 3;
  const SampleRow row = make_sample_row(params, 2, 17);
  EXPECT_EQ(row.temperature, 0.7f);
  EXPECT_EQ(row.top_p, 0.8f);
  EXPECT_EQ(row.top_k, 5);
  EXPECT_EQ(row.min_p, 0.1f);
  EXPECT_EQ(row.seed, 42u);
  EXPECT_EQ(row.sample_index, 2u);
  EXPECT_EQ(row.position, 17u);
  EXPECT_EQ(row.num_logprobs, 3);
}

// Three ranks of which the middle one owns no ids; two rows; the best id lies on the last rank.
TEST(Sampler, SkipsRanksWithoutIds) {
  ShardMap shards;
  shards.world = 3;
  shards.ranks.resize(3);
  shards.ranks[0].vocab = {0, 1024};
  shards.ranks[1].vocab = {1024, 1024};
  shards.ranks[2].vocab = {1024, 1500};
  const std::size_t strides[] = {1024, 0, 476};
  std::vector<float> low(2 * 1024, 0.0f), high(2 * 476, 0.0f);
  low[3] = 1.0f;           // row 0: id 3
  high[476 + 400] = 2.0f;  // row 1: id 1424
  const float* const pieces[] = {low.data(), nullptr, high.data()};
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  const std::vector<SampleRow> rows(2, make_sample_row(greedy, 0, 1));
  for (const char* kind : {"reference", "cpu"}) {
    DeviceOptions options;
    options.kind = kind;
    options.num_threads = 1;
    const auto device = open_device(options);
    ASSERT_TRUE(device.ok()) << device.status();
    std::vector<RowResult> results(2);
    std::vector<TokenId> ids(2);
    Sampler(shards).enqueue((*device)->ops(), pieces, strides, rows, results.data(), ids.data());
    ASSERT_TRUE((*device)->wait().ok());
    EXPECT_EQ(results[0].token, 3) << kind;
    EXPECT_EQ(results[1].token, 1424) << kind;
    EXPECT_EQ(ids, std::vector<TokenId>({3, 1424})) << kind;
  }
}

}  // namespace
}  // namespace quire
