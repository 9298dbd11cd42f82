// What is accepted and released comes back after the process has gone; what has ended or was
// cancelled does not come back as unfinished.
#include "coordinator/journal/journal.h"

#include <gmock/gmock.h>

#include "tests/coordinator/journal/journal_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(JournalTest, WhatARequestHadComesBack) {
  open();
  ASSERT_TRUE(journal_->accept(request(5, record("a"), 2)).ok());
  OutputDelta first = delta(5, 0, {10, 11});
  first.num_cached_tokens = 3;
  first.logprobs = {{{10, -0.5f}, {9, -1.5f}}, {{11, -0.25f}}};
  release({first, delta(5, 1, {20})});
  release({delta(5, 0, {12})});
  release({delta(5, 1, {21}, FinishReason::kLength)});
  ASSERT_EQ(delivered_.size(), 4u);
  EXPECT_THAT(delivered_[2].tokens, ElementsAre(12));

  open();
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_EQ(saved_[0].record->name, "a");
  EXPECT_EQ(saved_[0].record->body, "{\"prompt\":\"a\"}");
  EXPECT_EQ(saved_[0].record->created, 1234);
  const SavedRequest* back = saved(5);
  ASSERT_NE(back, nullptr);
  EXPECT_FALSE(back->ended());
  EXPECT_THAT(back->request.prompt, ElementsAre(1, 2, 5));
  EXPECT_EQ(back->request.params.seed, 47u);
  EXPECT_EQ(back->request.params.max_tokens, 50);
  EXPECT_EQ(back->request.arrival, absl::FromUnixMicros(1'700'000'000'000'000));
  EXPECT_EQ(back->request.deadline, absl::InfiniteFuture());
  ASSERT_EQ(back->past.size(), 2u);
  EXPECT_THAT(back->past[0].tokens, ElementsAre(10, 11, 12));
  EXPECT_EQ(back->past[0].num_cached_tokens, 3);
  ASSERT_EQ(back->past[0].logprobs.size(), 2u);
  EXPECT_EQ(back->past[0].logprobs[0][1].token, 9);
  EXPECT_FLOAT_EQ(back->past[0].logprobs[1][0].logprob, -0.25f);
  EXPECT_EQ(back->past[0].finish, FinishReason::kNone);
  EXPECT_THAT(back->past[1].tokens, ElementsAre(20, 21));
  EXPECT_EQ(back->past[1].finish, FinishReason::kLength);
  EXPECT_EQ(journal_->last_request(), 5u);
}

TEST_F(JournalTest, GoesOnWhereItWasLifeAfterLife) {
  open();
  ASSERT_TRUE(journal_->accept(request(1, record("a"))).ok());
  std::vector<TokenId> all;
  for (TokenId token = 0; token < 12; ++token) {
    release({delta(1, 0, {token})});
    all.push_back(token);
    if (token % 3 == 0) open();
  }
  open();
  EXPECT_EQ(saved(1)->past[0].tokens, all);
  release({delta(1, 0, {99}, FinishReason::kStop)});
  open();
  EXPECT_TRUE(saved(1)->ended());
  EXPECT_EQ(saved(1)->past[0].tokens.back(), 99);
}

TEST_F(JournalTest, CancelledAndWithdrawnRequestsLeaveNoTrace) {
  open();
  ASSERT_TRUE(journal_->accept(request(1, record("cancelled"))).ok());
  ASSERT_TRUE(journal_->accept(request(2, record("withdrawn"))).ok());
  ASSERT_TRUE(journal_->accept(request(3, record("stays"))).ok());
  release({delta(1, 0, {5}), delta(1, 0, {}, FinishReason::kCancelled)});
  journal_->withdraw(2);
  open();
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_EQ(saved_[0].record->name, "stays");
}

TEST_F(JournalTest, WhatAnOrderlyStopCutsOffGoesOnInTheNextLife) {
  open();
  ASSERT_TRUE(journal_->accept(request(1, record("a"))).ok());
  release({delta(1, 0, {5})});
  release({delta(1, 0, {}, FinishReason::kCancelled)}, /*is_written=*/false);
  open();
  ASSERT_NE(saved(1), nullptr);
  EXPECT_FALSE(saved(1)->ended());
  EXPECT_THAT(saved(1)->past[0].tokens, ElementsAre(5));
}

TEST_F(JournalTest, AnEndByTheReaderIsWrittenThoughNothingIsDelivered) {
  open();
  ASSERT_TRUE(journal_->accept(request(1, record("a"), 2)).ok());
  release({delta(1, 0, {5})});
  journal_->release({{nullptr, delta(1, 0, {}, FinishReason::kStop), true}});
  release({delta(1, 1, {6})});
  open();
  EXPECT_EQ(saved(1)->past[0].finish, FinishReason::kStop);
  EXPECT_EQ(saved(1)->past[1].finish, FinishReason::kNone);
}

TEST_F(JournalTest, ACallWhosePromptsWereNotAllAcceptedIsNone) {
  open();
  const auto two = record("two", 2);
  ASSERT_TRUE(journal_->accept(request(1, two, 1, 0)).ok());
  const auto both = record("both", 2);
  ASSERT_TRUE(journal_->accept(request(2, both, 1, 0)).ok());
  ASSERT_TRUE(journal_->accept(request(3, both, 1, 1)).ok());
  open();
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_EQ(saved_[0].record->name, "both");
  EXPECT_EQ(saved_[0].requests[1].request.id, 3u);
}

TEST_F(JournalTest, OtherModelsAndTenantsAreNotTakenUp) {
  options_.tenants = {"ann", "bob"};
  open();
  auto of_bob = record("b");
  of_bob->tenant = "bob";
  auto of_ann = record("a");
  of_ann->tenant = "ann";
  ASSERT_TRUE(journal_->accept(request(1, of_ann)).ok());
  ASSERT_TRUE(journal_->accept(request(2, of_bob)).ok());
  options_.tenants = {"bob", "carl"};
  open();
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_EQ(saved(2)->request.tenant, 0) << "by name, not by number";
  EXPECT_THAT(journal_->problems(), ElementsAre(HasSubstr("tenant")));
  options_.model_hash = 78;
  open();
  EXPECT_THAT(saved_, IsEmpty());
  EXPECT_THAT(journal_->problems(), ElementsAre(HasSubstr("another model")));
}

TEST_F(JournalTest, ARequestThatLetsCoordinatorsDieIsNotTakenUpForEver) {
  open();
  ASSERT_TRUE(journal_->accept(request(1, record("deadly"))).ok());
  ASSERT_TRUE(journal_->accept(request(2, record("runs"))).ok());
  for (int life = 0; life < 5; ++life) {
    release({delta(2, 0, {5})});
    if (life % 2 == 0) open();  // an orderly end is held against nobody
    crash();
    EXPECT_NE(saved(1), nullptr) << life;
  }
  for (int life = 0; life < 3; ++life) {
    release({delta(2, 0, {5})});
    crash();
    EXPECT_NE(saved(1), nullptr) << life;
  }
  release({delta(2, 0, {5})});
  crash();
  EXPECT_EQ(saved(1), nullptr);
  EXPECT_THAT(journal_->problems(), ElementsAre(HasSubstr("request 1: 5 coordinators")));
  EXPECT_NE(saved(2), nullptr);
}

TEST_F(JournalTest, TheLastEpochComesBack) {
  open();
  EXPECT_EQ(journal_->last_epoch().epoch, 0u);
  journal_->note_epoch({3, 77});
  journal_->note_epoch({4, ~std::uint64_t{0}});
  open();
  EXPECT_EQ(journal_->last_epoch().epoch, 4u);
  EXPECT_EQ(journal_->last_epoch().numerics, ~std::uint64_t{0});
}

TEST_F(JournalTest, AFullFileRefusesTheNewAndLetsTheOldGoOn) {
  options_.max_bytes = 256 << 10;
  open();
  ASSERT_TRUE(journal_->accept(request(1, record("runs"))).ok());
  release({delta(1, 0, {5})});
  absl::Status status;
  RequestId next = 2;
  for (; status.ok() && next < 200; ++next) {
    Request large = request(next, record(std::to_string(next)));
    large.prompt.assign(3000, 1);
    status = journal_->accept(large);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(status.message(), HasSubstr(options_.path));
  EXPECT_FALSE(journal_->stats().writable);
  EXPECT_EQ(journal_->stats().errors, 1u);
  release({delta(1, 0, {6})});  // delivered all the same
  // What ran then is out of the file, so that there is room again; this one is not lost.
  const absl::Time patience = absl::Now() + absl::Seconds(30);
  while (!journal_->stats().writable && absl::Now() < patience) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  ASSERT_TRUE(journal_->stats().writable);
  ASSERT_TRUE(journal_->accept(request(next, record("after"))).ok());
  open();
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_EQ(saved_[0].record->name, "after");
}

TEST_F(JournalTest, WhatHasEndedMakesRoom) {
  options_.max_bytes = 256 << 10;
  open();
  for (RequestId id = 1; id <= 60; ++id) {
    Request large = request(id, record(std::to_string(id)));
    large.prompt.assign(3000, 1);
    if (!journal_->accept(large).ok()) {  // once full, room is made within a second or so
      const absl::Time patience = absl::Now() + absl::Seconds(30);
      while (!journal_->accept(large).ok() && absl::Now() < patience) {
        absl::SleepFor(absl::Milliseconds(20));
      }
    }
    release({delta(id, 0, {3}, FinishReason::kLength)});
  }
  EXPECT_GT(journal_->stats().errors, 0u);
  EXPECT_TRUE(journal_->stats().writable);
}

TEST_F(JournalTest, AFullFileIsOpened) {
  open();
  for (RequestId id = 1; id <= 30; ++id) {
    ASSERT_TRUE(journal_->accept(request(id, record(std::to_string(id)))).ok());
    release({delta(id, 0, std::vector<TokenId>(4000, 70000),
                   id < 30 ? FinishReason::kLength : FinishReason::kNone)});
  }
  crash();
  options_.max_bytes = static_cast<std::int64_t>(std::filesystem::file_size(options_.path));
  crash();
  ASSERT_NE(saved(30), nullptr) << "what has not ended comes first";
  EXPECT_EQ(saved(30)->past[0].tokens.size(), 4000u);
}

TEST_F(JournalTest, StaysSmallHoweverMuchRunsThroughIt) {
  options_.keep = absl::ZeroDuration();
  open();
  for (RequestId id = 1; id <= 300; ++id) {
    Request large = request(id, record(std::to_string(id)));
    large.prompt.assign(2000, 1);
    ASSERT_TRUE(journal_->accept(large).ok());
    release({delta(id, 0, std::vector<TokenId>(500, 3), FinishReason::kLength)});
    if (id % 100 == 0) open();  // folds, forgets, gives room back
  }
  journal_.reset();
  EXPECT_LT(std::filesystem::file_size(options_.path), 3u << 20);
}

}  // namespace
}  // namespace quire::test
