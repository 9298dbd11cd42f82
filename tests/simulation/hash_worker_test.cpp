// The fake worker must be strict, or the simulation shows nothing: each rule of common/step.h that
// a plan can break has a plan here that breaks it, beside one that does not.
#include "tests/fakes/hash_worker.h"

#include <gmock/gmock.h>

#include <string>
#include <utility>

namespace quire::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::uint64_t kSeed = 5;

class HashWorkerTest : public testing::Test {
 protected:
  HashWorkerTest() {
    config_.num_blocks = 12;
    config_.num_host_blocks = 4;
    config_.block_size = 4;
    config_.max_num_seqs = 4;
    config_.max_num_batched_tokens = 40;
  }

  // The next plan, with nothing in it.
  StepPlan plan() {
    StepPlan plan;
    plan.epoch = 1;
    plan.step = next_step_++;
    return plan;
  }
  static AdmitRow admission(SlotId slot, std::vector<TokenId> tokens, SlotId fork_of = -1,
                            int num_prompt = 0) {
    AdmitRow row;
    row.slot = slot;
    row.num_prompt_tokens = num_prompt > 0 ? num_prompt : static_cast<int>(tokens.size());
    row.tokens = std::move(tokens);
    row.fork_of = fork_of;
    row.sample_index = slot;
    row.params.seed = kSeed;
    return row;
  }
  static PlanRow row(SlotId slot, int first, int count, bool samples,
                     std::vector<std::vector<BlockId>> blocks = {}) {
    PlanRow row;
    row.slot = slot;
    row.first_position = first;
    row.num_tokens = count;
    row.samples = samples;
    row.new_blocks = std::move(blocks);
    return row;
  }
  HashWorker& worker() {
    if (worker_ == nullptr) worker_ = std::make_unique<HashWorker>(config_);
    return *worker_;
  }
  StepResult run(const StepPlan& plan) {
    StepResult result;
    const absl::Status status = worker().run(plan, &result);
    EXPECT_TRUE(status.ok()) << status;
    return result;
  }
  void expect_wrong(const StepPlan& plan, const char* rule) {
    StepResult result;
    const absl::Status status = worker().run(plan, &result);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(rule));
  }
  // Slot `slot` computes tokens 0, 1, 2, … up to `count` in blocks of its own and picks.
  TokenId prefill(SlotId slot, int count, std::vector<BlockId> blocks) {
    StepPlan first = plan();
    first.admits.push_back(admission(slot, numbers(count)));
    first.rows.push_back(row(slot, 0, count, true, {std::move(blocks)}));
    const StepResult result = run(first);
    return result.rows.empty() ? -1 : result.rows[0].token;
  }
  static std::vector<TokenId> numbers(int count) {
    std::vector<TokenId> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(i);
    return tokens;
  }
  TokenId next(const std::vector<TokenId>& tokens, int sample_index) const {
    return config_.model.next(tokens, kSeed, sample_index);
  }

  HashWorkerConfig config_;
  StepId next_step_ = 1;
  std::unique_ptr<HashWorker> worker_;
};

TEST_F(HashWorkerTest, PicksTheHashOfAllTokensInChunksAndAhead) {
  StepPlan one = plan();
  one.admits.push_back(admission(2, numbers(6)));
  one.rows.push_back(row(2, 0, 4, false, {{7}}));
  EXPECT_THAT(run(one).rows, IsEmpty());
  StepPlan two = plan();
  two.rows.push_back(row(2, 4, 2, true, {{3}}));
  std::vector<TokenId> tokens = numbers(6);
  tokens.push_back(next(tokens, 2));
  EXPECT_EQ(run(two).rows[0].token, tokens.back());
  StepPlan three = plan();
  three.rows.push_back(row(2, 6, 1, true));
  EXPECT_EQ(run(three).rows[0].token, next(tokens, 2));
}

TEST_F(HashWorkerTest, HeadsOfPlansAreChecked) {
  StepPlan wrong = plan();
  expect_wrong(wrong, "neither rows nor saves");
  wrong = plan();
  wrong.epoch = 2;
  expect_wrong(wrong, "epoch");
  wrong = plan();
  wrong.step = 99;
  expect_wrong(wrong, "out of order");
  next_step_ = 3;
  wrong = plan();
  wrong.saves = {{0, 0}};
  EXPECT_THAT(run(wrong).rows, IsEmpty()) << "a plan without rows may save";
  wrong = plan();
  wrong.saves = {{0, 0}};
  wrong.loads = {{0, 0}};
  expect_wrong(wrong, "no rows");
}

TEST_F(HashWorkerTest, SlotsAreAdmittedOnceAndGrantedOnce) {
  prefill(0, 4, {0});
  StepPlan wrong = plan();
  wrong.admits.push_back(admission(0, numbers(4)));
  wrong.rows.push_back(row(0, 0, 4, true, {{1}}));
  expect_wrong(wrong, "live slot 0");
  wrong = plan();
  wrong.rows.push_back(row(0, 4, 1, true, {{1}}));
  wrong.rows.push_back(row(0, 5, 1, true));
  expect_wrong(wrong, "grants slot 0 twice");
  wrong = plan();
  wrong.rows.push_back(row(1, 0, 1, true));
  expect_wrong(wrong, "unknown slot 1");
  wrong = plan();
  wrong.releases = {3};
  wrong.saves = {{0, 0}};
  expect_wrong(wrong, "releases unknown slot 3");
}

TEST_F(HashWorkerTest, PositionsAndPicksMustFit) {
  prefill(0, 4, {0});
  for (const auto& [bad, rule] : std::vector<std::pair<PlanRow, const char*>>{
           {row(0, 3, 2, true, {{1}}), "but 4 are computed"},
           {row(0, 4, 2, true, {{1}}), "tokens nobody has"},
           {row(0, 4, 1, false, {{1}}), "does not sample"},
           {row(0, 4, 1, true), "1 blocks instead of 2"},
           {row(0, 4, 1, true, {{1, 2}}), "3 blocks instead of 2"},
           {row(0, 4, 1, true, {{12}}), "unknown block 12"},
           {row(0, 4, 1, true, {{1}, {2}}), "2 KV groups"}}) {
    worker_.reset();
    next_step_ = 1;
    prefill(0, 4, {0});
    StepPlan wrong = plan();
    wrong.rows.push_back(bad);
    expect_wrong(wrong, rule);
  }
}

TEST_F(HashWorkerTest, TheBudgetHolds) {
  StepPlan wrong = plan();
  wrong.admits.push_back(admission(0, numbers(41)));
  wrong.rows.push_back(row(0, 0, 41, true, {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}));
  expect_wrong(wrong, "token budget");
}

TEST_F(HashWorkerTest, AForkPicksFromItsParentsRow) {
  StepPlan one = plan();
  one.admits.push_back(admission(0, numbers(6)));
  one.rows.push_back(row(0, 0, 3, false, {{5}}));
  run(one);
  StepPlan two = plan();
  two.admits = {admission(1, {}, 0, 6), admission(2, {}, 0, 6)};
  two.rows = {row(0, 3, 3, true, {{6}}), row(1, 6, 0, true, {{6}}), row(2, 6, 0, true, {{6}})};
  const StepResult result = run(two);
  ASSERT_THAT(result.rows, SizeIs(3));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(result.rows[static_cast<std::size_t>(i)].row, i);
    EXPECT_EQ(result.rows[static_cast<std::size_t>(i)].token, next(numbers(6), i));
  }
  // They share block 6: each but the last to write copies it.
  StepPlan three = plan();
  three.copies = {{0, 6, 7}, {0, 6, 8}};
  three.rows = {row(0, 6, 1, true), row(1, 6, 1, true, {{7}}), row(2, 6, 1, true, {{8}})};
  three.rows[1].keep_blocks = 1;
  three.rows[2].keep_blocks = 1;
  const StepResult picks = run(three);
  for (int i = 0; i < 3; ++i) {
    std::vector<TokenId> tokens = numbers(6);
    tokens.push_back(next(tokens, i));
    EXPECT_EQ(picks.rows[static_cast<std::size_t>(i)].token, next(tokens, i));
  }
}

TEST_F(HashWorkerTest, AForkMayFollowItsParentInOnePlan) {
  prefill(3, 4, {4});
  StepPlan one = plan();
  one.releases = {3};
  one.admits = {admission(0, numbers(6)), admission(1, {}, 0, 6)};
  one.rows = {row(0, 4, 2, true, {{4, 6}}), row(1, 6, 0, true, {{4, 6}})};
  const StepResult result = run(one);
  ASSERT_THAT(result.rows, SizeIs(2));
  EXPECT_EQ(result.rows[1].token, next(numbers(6), 1));
}

TEST_F(HashWorkerTest, ASharedBlockIsNotWritten) {
  prefill(0, 6, {5, 6});
  StepPlan wrong = plan();
  wrong.admits = {admission(1, {}, 0, 6)};
  wrong.rows = {row(0, 6, 1, true), row(1, 6, 1, true)};
  expect_wrong(wrong, "stores position 6 of slot 0 into shared block 6");
}

TEST_F(HashWorkerTest, WhatWasSharedWronglyIsFoundWhenItIsRead) {
  prefill(0, 6, {5, 6});
  StepPlan one = plan();
  one.admits = {admission(1, {}, 0, 6)};
  one.rows = {row(0, 6, 1, true)};
  run(one);  // slot 1 may be told with its next row to drop block 6
  StepPlan two = plan();
  two.admits = {admission(2, {40, 41})};
  two.rows = {row(2, 0, 2, true, {{6}})};
  run(two);
  StepPlan wrong = plan();
  wrong.rows = {row(1, 6, 1, true)};
  expect_wrong(wrong, "lets slot 1 read token 40 of position 0");
}

TEST_F(HashWorkerTest, TheLastHolderOfAForkedBlockWritesIt) {
  const TokenId token = prefill(0, 6, {5, 6});
  StepPlan one = plan();
  one.admits = {admission(1, {}, 0, 6)};
  one.copies = {{0, 6, 7}};
  one.rows = {row(1, 6, 1, true, {{7}})};
  one.rows[0].keep_blocks = 1;
  run(one);
  StepPlan two = plan();
  two.releases = {1};
  two.rows = {row(0, 6, 1, true)};
  std::vector<TokenId> tokens = numbers(6);
  tokens.push_back(token);
  EXPECT_EQ(run(two).rows[0].token, next(tokens, 0));
}

TEST_F(HashWorkerTest, ForksThatAreNotForksAreRefused) {
  prefill(0, 6, {5, 6});
  StepPlan wrong = plan();
  wrong.admits = {admission(1, {}, 3, 6)};
  wrong.rows = {row(0, 6, 1, true)};
  expect_wrong(wrong, "forks slot 3, which is not in use");
  wrong = plan();
  wrong.admits = {admission(2, {}, 1, 4), admission(1, numbers(4))};
  wrong.rows = {row(1, 0, 4, true, {{7}})};
  expect_wrong(wrong, "forks slot 1, which is not in use");  // not yet
  worker_.reset();
  next_step_ = 1;
  prefill(0, 6, {5, 6});
  wrong = plan();
  wrong.admits = {admission(1, {}, 0, 6)};
  wrong.rows = {row(1, 6, 0, true)};
  expect_wrong(wrong, "samples slot 1 at position 6 of 7");  // its parent has picked already
}

TEST_F(HashWorkerTest, ForksOfNoTokensNeedTheirParentsRow) {
  for (const auto& [first, blocks, rule] :
       std::vector<std::tuple<int, std::vector<BlockId>, const char*>>{
           {6, {7}, "other blocks than its parent"}, {5, {6}, "samples slot 1"}}) {
    worker_.reset();
    next_step_ = 1;
    StepPlan one = plan();
    one.admits.push_back(admission(0, numbers(6)));
    one.rows.push_back(row(0, 0, 3, false, {{5}}));
    run(one);
    StepPlan wrong = plan();
    wrong.admits = {admission(1, {}, 0, 6)};
    wrong.rows = {row(0, 3, 3, true, {{6}}), row(1, first, 0, true, {blocks})};
    expect_wrong(wrong, rule);
  }
  worker_.reset();
  next_step_ = 1;
  StepPlan one = plan();
  one.admits.push_back(admission(0, numbers(6)));
  one.rows.push_back(row(0, 0, 3, false, {{5}}));
  run(one);
  StepPlan wrong = plan();
  wrong.admits = {admission(1, {}, 0, 6)};
  wrong.rows = {row(1, 6, 0, true, {{6}})};
  expect_wrong(wrong, "its parent has no row");
}

TEST_F(HashWorkerTest, ACachedPrefixMustBeThere) {
  prefill(0, 9, {5, 6, 7});
  StepPlan hit = plan();
  hit.releases = {0};
  std::vector<TokenId> tokens = numbers(8);
  tokens.push_back(60);
  hit.admits = {admission(1, tokens)};
  hit.rows = {row(1, 8, 1, true, {{5, 6, 8}})};
  EXPECT_EQ(run(hit).rows[0].token, next(tokens, 1));

  StepPlan swapped = plan();
  swapped.admits = {admission(2, tokens)};
  swapped.rows = {row(2, 8, 1, true, {{6, 5, 9}})};
  expect_wrong(swapped, "read token 4 of position 4");
  StepPlan other = plan();
  tokens[2] = 61;
  other.admits = {admission(3, tokens)};
  other.rows = {row(3, 8, 1, true, {{5, 6, 10}})};
  expect_wrong(other, "where it needs token 61 of position 2");
}

TEST_F(HashWorkerTest, APrefixIsNotThereInThePlanThatComputesIt) {
  StepPlan wrong = plan();
  wrong.admits = {admission(0, numbers(6)), admission(1, numbers(6))};
  wrong.rows = {row(0, 0, 6, true, {{5, 6}}), row(1, 4, 2, true, {{5, 7}})};
  expect_wrong(wrong, "read nothing");
}

TEST_F(HashWorkerTest, APartOfABlockIsReusedByCopyOnly) {
  prefill(0, 8, {5, 6});
  StepPlan wrong = plan();
  wrong.releases = {0};
  wrong.admits = {admission(1, numbers(8))};
  wrong.rows = {row(1, 7, 1, true, {{5, 6}})};
  expect_wrong(wrong, "inside of block 6");
  worker_.reset();
  next_step_ = 1;
  prefill(0, 8, {5, 6});
  StepPlan right = plan();
  right.admits = {admission(1, numbers(8))};
  right.copies = {{0, 6, 7}};
  right.rows = {row(1, 7, 1, true, {{5, 7}})};
  EXPECT_EQ(run(right).rows[0].token, next(numbers(8), 1));
}

TEST_F(HashWorkerTest, ABlockOfAnotherIsNotTakenForANewOne) {
  prefill(0, 7, {5, 6});
  StepPlan wrong = plan();
  wrong.admits = {admission(2, numbers(3))};
  wrong.rows = {row(0, 7, 1, true), row(2, 0, 3, true, {{5}})};
  expect_wrong(wrong, "into shared block 5");
}

TEST_F(HashWorkerTest, CopiesAndLoadsFillWhatNobodyHolds) {
  for (const auto& [copies, rule] : std::vector<std::pair<std::vector<BlockCopy>, const char*>>{
           {{{0, 5, 6}}, "fills block 6, which a slot holds"},
           {{{0, 5, 9}}, "copies to block 9 for nobody"},
           {{{0, 5, 7}, {0, 6, 7}}, "fills block 7 twice"},
           {{{0, 5, 7}, {0, 7, 9}}, "copies from and to block 7"},
           {{{1, 5, 7}}, "unknown KV group 1"},
           {{{0, 5, 12}}, "one is unknown"}}) {
    worker_.reset();
    next_step_ = 1;
    prefill(0, 8, {5, 6});
    StepPlan wrong = plan();
    wrong.copies = copies;
    wrong.rows = {row(0, 8, 1, true, {{7}})};
    expect_wrong(wrong, rule);
  }
}

TEST_F(HashWorkerTest, BlocksGoToTheHostAndComeBack) {
  prefill(0, 8, {5, 6});
  StepPlan save = plan();
  save.releases = {0};
  save.admits = {admission(1, {40, 41, 42, 43, 44})};
  save.saves = {{5, 0}, {6, 3}};
  save.rows = {row(1, 0, 5, true, {{6, 5}})};
  run(save);  // written over, after it was saved
  StepPlan load = plan();
  std::vector<TokenId> tokens = numbers(8);
  tokens.push_back(50);
  load.admits = {admission(2, tokens)};
  load.loads = {{7, 0}, {8, 3}};
  load.rows = {row(2, 8, 1, true, {{7, 8, 9}})};
  EXPECT_EQ(run(load).rows[0].token, next(tokens, 2));
}

TEST_F(HashWorkerTest, WrongSwapsAreRefused) {
  for (const auto& [loads, saves, rule] :
       std::vector<std::tuple<std::vector<BlockSwap>, std::vector<BlockSwap>, const char*>>{
           {{{7, 1}}, {}, "never saved"},
           {{{7, 4}}, {}, "unknown host block 4"},
           {{{12, 0}}, {}, "unknown block 12"},
           {{{5, 0}}, {{5, 0}}, "fills block 5, which a slot holds"},
           {{}, {{5, 0}, {6, 0}}, "saves twice to host block 0"}}) {
    worker_.reset();
    next_step_ = 1;
    prefill(0, 8, {5, 6});
    StepPlan wrong = plan();
    wrong.loads = loads;
    wrong.saves = saves;
    wrong.rows = {row(0, 8, 1, true, {{7}})};
    expect_wrong(wrong, rule);
  }
}

TEST_F(HashWorkerTest, DraftsComeTrueUpToTheFirstWrongOne) {
  std::vector<TokenId> tokens = numbers(4);
  tokens.push_back(prefill(0, 4, {0}));
  const TokenId a = next(tokens, 0);
  std::vector<TokenId> longer = tokens;
  longer.push_back(a);
  const TokenId b = next(longer, 0);
  const TokenId not_b = (b + 1) % config_.model.vocab;
  StepPlan guess = plan();
  guess.rows = {row(0, 4, 4, true, {{1}})};
  guess.rows[0].drafts = {a, not_b, 7};
  const StepResult result = run(guess);
  ASSERT_THAT(result.rows, SizeIs(4));
  EXPECT_EQ(result.rows[0].token, a);
  EXPECT_EQ(result.rows[1].token, b);
  for (const RowResult& pick : result.rows) EXPECT_EQ(pick.row, 0);
  // The mirror holds a and b now; position 6 is b's and is not computed.
  longer.push_back(b);
  StepPlan after = plan();
  after.rows = {row(0, 6, 1, true)};
  EXPECT_EQ(run(after).rows[0].token, next(longer, 0));
}

TEST_F(HashWorkerTest, AllDraftsMayComeTrue) {
  std::vector<TokenId> tokens = numbers(4);
  tokens.push_back(prefill(0, 4, {0}));
  const TokenId a = next(tokens, 0);
  StepPlan guess = plan();
  guess.rows = {row(0, 4, 2, true, {{1}})};
  guess.rows[0].drafts = {a};
  tokens.push_back(a);
  tokens.push_back(next(tokens, 0));
  EXPECT_EQ(run(guess).rows[1].token, tokens.back());
  StepPlan after = plan();
  after.rows = {row(0, 6, 1, true)};
  EXPECT_EQ(run(after).rows[0].token, next(tokens, 0));
}

TEST_F(HashWorkerTest, StalePositionsAreNotReadByAnybody) {
  prefill(0, 4, {0});
  StepPlan guess = plan();
  guess.rows = {row(0, 4, 4, true, {{1}})};
  guess.rows[0].drafts = {1, 2, 3};  // wrong ones, as the hash will have it
  ASSERT_NE(run(guess).rows[0].token, 1);
  StepPlan wrong = plan();
  wrong.rows = {row(0, 8, 1, true, {{2}})};
  expect_wrong(wrong, "but 5 are computed");
}

TEST_F(HashWorkerTest, BeamsGetTheBestTokensAndKeepNone) {
  StepPlan one = plan();
  one.admits = {admission(0, numbers(4))};
  one.admits[0].params.beam_width = 2;
  one.admits[0].params.logprobs = 4;
  one.rows = {row(0, 0, 4, true, {{0}})};
  const StepResult result = run(one);
  ASSERT_THAT(result.rows, SizeIs(1));
  ASSERT_THAT(result.rows[0].logprobs, SizeIs(5));
  const std::vector<TokenLogprob> best = config_.model.best(numbers(4), 4);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(result.rows[0].logprobs[i + 1].token, best[i].token);
    EXPECT_EQ(result.rows[0].logprobs[i + 1].logprob, best[i].logprob);
  }
  StepPlan two = plan();
  two.admits = {admission(1, {}, 0, 4)};
  two.admits[0].params = one.admits[0].params;
  two.rows = {row(0, 4, 1, true, {{1}}), row(1, 4, 1, true, {{2}})};
  two.rows[0].tokens = {best[1].token};
  two.rows[1].tokens = {best[0].token};
  std::vector<TokenId> tokens = numbers(4);
  tokens.push_back(best[1].token);
  EXPECT_EQ(run(two).rows[0].logprobs[2].token, config_.model.best(tokens, 4)[1].token);
  StepPlan wrong = plan();
  wrong.rows = {row(0, 5, 1, true)};
  expect_wrong(wrong, "tokens nobody has");
}

TEST_F(HashWorkerTest, TokensAreForBeamsAndDraftsForOthers) {
  prefill(0, 4, {0});
  StepPlan wrong = plan();
  wrong.rows = {row(0, 4, 2, true, {{1}})};
  wrong.rows[0].tokens = {3};
  expect_wrong(wrong, "searches no beams");
  wrong = plan();
  wrong.admits = {admission(1, numbers(4))};
  wrong.admits[0].params.beam_width = 2;
  wrong.rows = {row(1, 0, 5, true, {{2, 3}})};
  wrong.rows[0].drafts = {3};
  expect_wrong(wrong, "sends drafts to beam slot 1");
  wrong = plan();
  wrong.admits = {admission(2, numbers(4))};
  wrong.rows = {row(2, 0, 4, false, {{4, 5}})};
  wrong.rows[0].drafts = {3, 4, 5, 6, 7};
  expect_wrong(wrong, "drafts without the token before them");
}

TEST_F(HashWorkerTest, GroupsHaveTablesOfTheirOwn) {
  config_.num_kv_groups = 2;
  StepPlan one = plan();
  one.admits = {admission(0, numbers(5))};
  one.rows = {row(0, 0, 5, true, {{0, 1}, {2, 3}})};
  const TokenId token = run(one).rows[0].token;
  EXPECT_EQ(token, next(numbers(5), 0));
  StepPlan mixed = plan();
  mixed.admits = {admission(1, {}, 0, 5)};
  mixed.copies = {{0, 1, 4}, {0, 3, 5}};  // the second is of group 1
  mixed.rows = {row(1, 5, 1, true, {{4}, {5}})};
  mixed.rows[0].keep_blocks = 1;
  expect_wrong(mixed, "read nothing");
}

TEST_F(HashWorkerTest, DomainsAreKeptApart) {
  config_.seed_names_domain = true;
  StepPlan one = plan();
  one.admits = {admission(0, numbers(5))};
  one.admits[0].params.seed = (std::uint64_t{1} << 32) + 1;
  one.rows = {row(0, 0, 5, true, {{0, 1}})};
  run(one);
  StepPlan same = plan();
  same.admits = {admission(1, numbers(5))};
  same.admits[0].params.seed = (std::uint64_t{1} << 32) + 2;
  same.rows = {row(1, 4, 1, true, {{0, 2}})};
  run(same);
  StepPlan other = plan();
  other.admits = {admission(2, numbers(5))};
  other.admits[0].params.seed = (std::uint64_t{2} << 32) + 2;
  other.rows = {row(2, 4, 1, true, {{0, 3}})};
  expect_wrong(other, "domain 1 where it needs token 0 of position 0, KV group 0, domain 2");
}

TEST(HashModelTest, BestIsALogSoftmaxInOrder) {
  const HashModel model{50};
  const std::vector<TokenLogprob> all = model.best({{1, 2, 3}}, 1000);
  ASSERT_THAT(all, SizeIs(50));
  double sum = 0.0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    sum += std::exp(static_cast<double>(all[i].logprob));
    EXPECT_LE(all[i].logprob, all[i == 0 ? 0 : i - 1].logprob);
  }
  EXPECT_NEAR(sum, 1.0, 1e-5);
  EXPECT_NE(model.best({{1, 2, 4}}, 3)[0].logprob, all[0].logprob);
}

TEST(HashModelTest, AModelWithAPeriodRepeatsItself) {
  const HashModel model{50, 3};
  std::vector<TokenId> tokens{7, 8, 9};
  int repeats = 0;
  for (int i = 0; i < 400; ++i) {
    tokens.push_back(model.next(tokens, 1, 0));
    repeats += tokens.back() == tokens[tokens.size() - 4] ? 1 : 0;
  }
  EXPECT_GT(repeats, 300);
  EXPECT_LT(repeats, 400);
}

}  // namespace
}  // namespace quire::test
