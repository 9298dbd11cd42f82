// What prepare() makes of fields that say how a request waits and how its choices are found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/api/best_of.h"
#include "tests/coordinator/api/letter_tokenizer.h"

namespace quire::test {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

class PrepareTest : public ::testing::Test {
 protected:
  PrepareTest() : model_(letter_model(512)) {
    config_.max_model_len = 512;
    engine_ = std::make_unique<Engine>(config_, model_.spec);
  }
  absl::StatusOr<Prepared> try_prepare() {
    return prepare({&config_, &model_, engine_.get()}, {1, 2, 3}, input_);
  }
  Prepared prepared() {
    auto out = try_prepare();
    EXPECT_TRUE(out.ok()) << out.status();
    return out.ok() ? *std::move(out) : Prepared();
  }
  EngineConfig config_;
  ServedModel model_;
  std::unique_ptr<Engine> engine_;
  GenerationInput input_;
};

TEST_F(PrepareTest, Defaults) {
  const Prepared out = prepared();
  EXPECT_EQ(out.request.n, 1);
  EXPECT_EQ(out.num_returned, 1);
  EXPECT_EQ(out.request.beams.width, 0);
  EXPECT_EQ(out.request.priority, 0);
  EXPECT_EQ(out.request.tenant, 0);
  EXPECT_EQ(out.request.deadline, absl::InfiniteFuture());
  EXPECT_EQ(out.request.cache_salt, "");
  EXPECT_EQ(out.request.params.logprobs, -1);
  EXPECT_FALSE(out.hide_logprobs);
}

TEST_F(PrepareTest, DeadlinesCountFromArrival) {
  input_.arrival = absl::FromUnixSeconds(1'000'000);
  input_.timeout_s = 2.5;
  EXPECT_EQ(prepared().request.deadline, input_.arrival + absl::Milliseconds(2500));
  input_.timeout_s = 1e300;
  EXPECT_EQ(prepared().request.deadline, absl::InfiniteFuture());
  input_.timeout_s.reset();
  input_.deadline_ms = 1;
  EXPECT_EQ(prepared().request.deadline, input_.arrival + absl::Milliseconds(1));
  input_.deadline_ms = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(prepared().request.deadline, absl::InfiniteFuture());
}

TEST_F(PrepareTest, PriorityAndSalt) {
  config_.scheduling_policy = "priority";
  input_.priority = -1000;
  input_.cache_salt = "\xE2\x82\xAC";
  EXPECT_EQ(prepared().request.priority, -1000);
  EXPECT_EQ(prepared().request.cache_salt, "\xE2\x82\xAC");
  std::string long_salt;
  for (int i = 0; i < 1024; ++i) long_salt += *input_.cache_salt;
  input_.cache_salt = long_salt;  // characters count, not bytes
  EXPECT_EQ(prepared().request.cache_salt.size(), 3072u);
  *input_.cache_salt += "x";
  EXPECT_THAT(std::string(try_prepare().status().message()),
              StartsWith("`cache_salt` has 1025 characters"));
}

TEST_F(PrepareTest, BestOfMakesMoreThanItReturnsAndNeedsLogprobs) {
  input_.n = 2;
  input_.best_of = 5;
  Prepared out = prepared();
  EXPECT_EQ(out.request.n, 5);
  EXPECT_EQ(out.num_returned, 2);
  EXPECT_EQ(out.request.params.logprobs, 0);
  EXPECT_TRUE(out.hide_logprobs);
  input_.logprobs = 3;
  out = prepared();
  EXPECT_EQ(out.request.params.logprobs, 3);
  EXPECT_FALSE(out.hide_logprobs);
  input_.best_of = 2;  // nothing to choose
  input_.logprobs.reset();
  input_.stream = true;
  out = prepared();
  EXPECT_EQ(out.request.n, 2);
  EXPECT_EQ(out.num_returned, 2);
  EXPECT_EQ(out.request.params.logprobs, -1);
}

TEST_F(PrepareTest, BeamsAreAsManyAsChoicesOrBestOf) {
  input_.use_beam_search = true;
  input_.n = 3;
  input_.stream = true;
  Prepared out = prepared();
  EXPECT_EQ(out.request.beams.width, 3);
  EXPECT_EQ(out.request.n, 3);
  EXPECT_EQ(out.num_returned, 3);
  EXPECT_EQ(out.request.beams.length_penalty, 1.0);
  EXPECT_EQ(out.request.beams.early_stopping, BeamParams::EarlyStopping::kNo);
  EXPECT_EQ(out.request.params.temperature, 0.0f);
  input_.best_of = 16;
  input_.length_penalty = -0.5;
  input_.early_stopping = BeamParams::EarlyStopping::kNever;
  input_.temperature = 1.0;
  input_.top_p = 1.0;
  input_.top_k = -1;
  input_.seed = 7;
  input_.ignore_eos = true;
  input_.stop_token_ids = {5};
  out = prepared();
  EXPECT_EQ(out.request.beams.width, 16);
  EXPECT_EQ(out.request.n, 3);
  EXPECT_EQ(out.num_returned, 3);
  EXPECT_EQ(out.request.beams.length_penalty, -0.5);
  EXPECT_EQ(out.request.beams.early_stopping, BeamParams::EarlyStopping::kNever);
  EXPECT_TRUE(out.request.params.ignore_eos);
  EXPECT_THAT(out.request.params.stop_token_ids, ElementsAre(5));
}

ChoiceText::Piece piece(std::vector<float> logprobs) {
  ChoiceText::Piece piece;
  for (const float logprob : logprobs) {
    piece.tokens.push_back(1);
    piece.logprobs.push_back({{1, logprob, "a"}, {}});
  }
  return piece;
}

TEST(BestOfTest, RanksByMeanAndNotBySum) {
  BestOf best(4);
  best.add(0, piece({-1.0f, -1.0f}));
  best.add(1, piece({-0.5f}));
  best.add(1, piece({-0.6f, -0.7f, -0.6f}));  // the longest, and the likeliest per token
  best.add(2, piece({-1.0f}));
  EXPECT_THAT(best.best(4), ElementsAre(1, 0, 2, 3));  // ties in order; 3 has nothing
  EXPECT_THAT(best.best(1), ElementsAre(1));
}

}  // namespace
}  // namespace quire::test
