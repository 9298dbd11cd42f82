// Every rule of a plan's deltas, broken one at a time: the status names the slot and the field.
#include <functional>

#include "tests/worker/runner/slot_table_fixture.h"

namespace quire::test {
namespace {

TEST_F(SlotTableTest, FollowsASequence) {
  EXPECT_EQ(slots_.at(1).num_computed, 20);
  slots_.settle(slots_.expect(1, 0), {9});
  StepPlan plan;
  plan.rows = {row(1, 20, 1, true, {})};
  ASSERT_TRUE(slots_.apply(plan).ok());
  EXPECT_EQ(slots_.at(1).tokens.back(), 9);
  EXPECT_EQ(slots_.at(1).tables[0], (std::vector<BlockId>{3, 5}));
  plan = StepPlan();
  plan.releases = {1};
  plan.admits = {admit(1, 3)};  // a slot may be named again in the plan that releases it
  ASSERT_TRUE(slots_.apply(plan).ok());
  EXPECT_EQ(slots_.at(1).tokens.size(), 3u);
  EXPECT_TRUE(slots_.at(1).tables[0].empty());
  EXPECT_EQ(slots_.num_used(), 1);
}

TEST_F(SlotTableTest, FirstRowMayStartBehindACachedPrefix) {
  StepPlan plan;
  plan.admits = {admit(0, 40)};
  plan.rows = {row(0, 32, 8, true, {0, 1, 2})};
  EXPECT_TRUE(slots_.apply(plan).ok());
}

TEST_F(SlotTableTest, CopiesStayInsideTheArena) {
  for (const BlockCopy copy :
       {BlockCopy{0, -1, 2}, BlockCopy{0, 1, kLimits.num_blocks}, BlockCopy{1, 1, 2}}) {
    StepPlan plan;
    plan.rows = {row(1, 20, 1, true, {})};
    plan.copies = {copy};
    const absl::Status status = slots_.apply(plan);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("copies"));
  }
}

TEST_F(SlotTableTest, CopiesComeWithRows) {
  StepPlan plan;
  plan.copies = {{0, 1, 2}};
  EXPECT_THAT(std::string(slots_.apply(plan).message()), testing::HasSubstr("without rows"));
}

struct Case {
  const char* name;
  std::function<void(StepPlan&)> build;
  std::vector<std::string> says;
};

class BadPlan : public SlotTableTest, public testing::WithParamInterface<Case> {};

TEST_P(BadPlan, IsRefusedByName) {
  StepPlan plan;
  GetParam().build(plan);
  expect_refused(plan, GetParam().says);
}

const Case kCases[] = {
    {"release_unknown", [](StepPlan& p) { p.releases = {2}; }, {"slot 2", "releases"}},
    {"release_outside", [](StepPlan& p) { p.releases = {4}; }, {"slot 4", "[0, 3]"}},
    {"release_negative", [](StepPlan& p) { p.releases = {-1}; }, {"slot -1", "releases"}},
    {"admit_used", [](StepPlan& p) { p.admits = {admit(1, 2)}; }, {"slot 1", "admits"}},
    {"admit_empty", [](StepPlan& p) { p.admits = {admit(0, 0)}; }, {"slot 0", "tokens"}},
    {"admit_too_long", [](StepPlan& p) { p.admits = {admit(0, 101)}; }, {"tokens", "101", "100"}},
    {"admit_bad_id",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.admits[0].tokens[1] = kVocab;
     },
     {"slot 0", "id 50", "[0, 49]"}},
    {"admit_bad_params",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.admits[0].params.top_p = 2.0f;
     },
     {"slot 0", "params", "top_p"}},
    {"row_unknown", [](StepPlan& p) { p.rows = {row(2, 0, 1, false, {0})}; }, {"slot 2", "rows"}},
    {"row_twice",
     [](StepPlan& p) {
       p.admits = {admit(0, 4)};
       p.rows = {row(0, 0, 1, false, {0}), row(0, 1, 1, false, {})};
     },
     {"slot 0", "rows", "twice"}},
    {"row_without_token",
     [](StepPlan& p) { p.rows = {row(1, 20, 1, true, {})}; },
     {"slot 1", "num_tokens", "20 tokens"}},
    {"row_behind",
     [](StepPlan& p) { p.rows = {row(1, 10, 1, false, {})}; },
     {"slot 1", "first_position", "20"}},
    {"row_negative",
     [](StepPlan& p) {
       p.admits = {admit(0, 4)};
       p.rows = {row(0, -1, 2, false, {0})};
     },
     {"slot 0", "first_position"}},
    {"row_empty",
     [](StepPlan& p) {
       p.admits = {admit(0, 4)};
       p.rows = {row(0, 0, 0, false, {0})};
     },
     {"slot 0", "num_tokens"}},
    {"samples_early",
     [](StepPlan& p) {
       p.admits = {admit(0, 4)};
       p.rows = {row(0, 0, 3, true, {0})};
     },
     {"slot 0", "samples"}},
    {"samples_when_full",
     [](StepPlan& p) {
       p.admits = {admit(0, 100)};
       p.rows = {row(0, 90, 10, true, {0, 1, 2, 3, 4, 5, 6})};
     },
     {"slot 0", "samples", "100"}},
    {"no_blocks",
     [](StepPlan& p) {
       p.admits = {admit(0, 17)};
       p.rows = {row(0, 0, 17, true, {0})};
     },
     {"slot 0", "new_blocks", "16", "17"}},
    {"block_outside",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.rows = {row(0, 0, 2, true, {8})};
     },
     {"slot 0", "new_blocks", "block 8", "[0, 7]"}},
    {"two_groups",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.rows = {row(0, 0, 2, true, {0})};
       p.rows[0].new_blocks.push_back({1});
     },
     {"slot 0", "new_blocks", "2 KV groups"}},
    {"too_many_blocks",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.rows = {row(0, 0, 2, true, std::vector<BlockId>(9, 1))};
     },
     {"slot 0", "new_blocks", "100"}},
    {"too_many_picks",
     [](StepPlan& p) {
       p.admits = {admit(0, 1)};
       p.rows = {row(0, 0, 64, true, {0, 1, 2, 4})};
       p.rows[0].drafts.assign(256, 7);
     },
     {"slot 0", "samples", "256 picks"}},
    {"keeps_more_than_it_has",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.rows = {row(0, 0, 2, true, {0})};
       p.rows[0].keep_blocks = 1;
     },
     {"slot 0", "keep_blocks", "1", "0 blocks"}},
    {"keeps_less_than_none",
     [](StepPlan& p) {
       p.admits = {admit(0, 2)};
       p.rows = {row(0, 0, 2, true, {0})};
       p.rows[0].keep_blocks = -2;
     },
     {"slot 0", "keep_blocks", "-2"}},
    {"too_many_tokens",
     [](StepPlan& p) {
       p.admits = {admit(0, 40), admit(2, 40)};
       p.rows = {row(0, 0, 40, true, {0, 1, 2}), row(2, 0, 40, true, {4, 6, 7})};
     },
     {"slot 2", "num_tokens", "64"}},
};
INSTANTIATE_TEST_SUITE_P(Plans, BadPlan, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace quire::test
