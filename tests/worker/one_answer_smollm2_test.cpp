// One answer on SmolLM2-135M-Instruct (Q4_1), as far as it is quick: prompts of the goldens and of
// real text, greedy and seeded by turns, by the real scheduler over real ranks. The whole matrix is
// one_answer_matrix_test.cpp.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/test_data.h"
#include "tests/worker/one_answer_engine.h"
#include "tests/worker/one_answer_prompts.h"

namespace quire::test {
namespace {

constexpr int kVocab = 49152;
constexpr int kLongest = 900;  // of a prompt: one of them fills four splits of attention

GroupOptions smollm2_options() {
  GroupOptions options;
  options.device = "cpu";
  options.dtype = "auto";
  options.limits = {.num_blocks = 640,
                    .block_size = 16,
                    .max_num_seqs = 64,
                    .max_num_batched_tokens = 2048,
                    .max_model_len = 1200};
  return options;
}

// Every `stride`th of the 64 prompts from `first` on; of the three longest goldens none.
std::vector<Prompt> some_requests(std::size_t first, std::size_t stride, int max_tokens) {
  const auto prompts = answer_prompts(kVocab, kLongest);
  std::vector<std::vector<TokenId>> some;
  for (std::size_t i = first; i < prompts.size(); i += stride) {
    if (i < 21 || i >= 24) some.push_back(prompts[i]);
  }
  return answer_requests(some, max_tokens, Draw::kByTurns);
}

std::vector<Output> serve_as(const Way& way, const std::vector<Prompt>& requests,
                             Traffic* traffic = nullptr) {
  auto group = open_for(demo_model(), smollm2_options(), way);
  EXPECT_TRUE(group.ok()) << group.status();
  if (!group.ok()) return {};
  auto served = serve(**group, requests, way);
  EXPECT_TRUE(served.ok()) << served.status();
  if (!served.ok()) return {};
  if (traffic != nullptr) *traffic = served->traffic;
  return std::move(served->outputs);
}

void expect_same(const std::vector<Output>& got, const std::vector<Output>& want,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(difference(got[i], want[i]), "") << what << ", request " << i;
  }
}

// 128 tokens each.
TEST(OneAnswerSmolLm2, AFewPromptsInSeveralWaysAtOnce) {
  QUIRE_NEED_DATA(data_root() / "reference/smollm2/golden.dev.json");
  QUIRE_NEED_DATA(demo_model());
  const auto requests = some_requests(2, 12, 128);
  const auto alone = serve_as({.name = "alone", .threads = 2, .together = 1}, requests);
  ASSERT_FALSE(alone.empty());
  const Way ways[] = {
      {.name = "1 rank, chunks of 16", .chunk = 16},
      {.name = "2 ranks, chunks of 64, guesses", .world = 2, .chunk = 64, .guesses = 3},
      {.name = "3 ranks, chunks of 512, preempted", .world = 3, .chunk = 512, .blocks = 80},
      {.name = "4 ranks, cached", .world = 4, .prefix_cache = true, .rounds = 2},
      {.name = "1 rank of 3 threads, offload",
       .threads = 3,
       .blocks = 80,
       .host_blocks = 400,
       .prefix_cache = true},
  };
  for (const Way& way : ways) {
    Traffic traffic;
    expect_same(serve_as(way, requests, &traffic), alone, way.name);
    std::printf("%s: %d steps, %lu preempted, %lu found, %lu guessed, %lu loaded\n",
                way.name.c_str(), traffic.num_steps, traffic.preemptions, traffic.prefix_hits,
                traffic.guesses, traffic.loaded_blocks);
    EXPECT_EQ(traffic.accepted_guesses > 0, way.guesses > 0);
    EXPECT_EQ(traffic.prefix_hits > 0, way.rounds > 1);
    EXPECT_EQ(traffic.preemptions > 0, way.blocks > 0);
    EXPECT_EQ(traffic.loaded_blocks > 0, way.host_blocks > 0);
  }
}

// All but the three longest, a few tokens: 61 rows in a step.
TEST(OneAnswerSmolLm2, SixtyAtOnceOrThreeByThree) {
  QUIRE_NEED_DATA(data_root() / "reference/smollm2/golden.dev.json");
  QUIRE_NEED_DATA(demo_model());
  const auto requests = some_requests(0, 1, 6);
  Traffic traffic;
  const auto together = serve_as({.name = "60 at once", .world = 2}, requests, &traffic);
  EXPECT_GT(traffic.most_rows, 55);
  expect_same(serve_as({.name = "3 by 3", .threads = 2, .together = 3, .chunk = 100}, requests),
              together, "3 by 3");
}

}  // namespace
}  // namespace quire::test
