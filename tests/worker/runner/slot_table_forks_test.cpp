// Slots that begin as another's copy, guess their next tokens, or are told them; and every rule of
// these broken one at a time.
#include <functional>

#include "tests/worker/runner/slot_table_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;

TEST_F(SlotTableTest, AForkBeginsAsItsParentIs) {
  take(1, {9});
  StepPlan plan;
  plan.admits = {fork(0, 1, 20)};
  plan.admits[0].sample_index = 3;
  plan.admits[0].params.seed = 77;
  // Its own copy of the last block; the parent goes on in the old one.
  plan.copies = {{0, 5, 2}};
  plan.rows = {row(0, 20, 1, true, {2}), row(1, 20, 1, true, {})};
  plan.rows[0].keep_blocks = 1;
  apply(plan);
  const Slot &child = slots_.at(0), &parent = slots_.at(1);
  EXPECT_EQ(child.tokens, parent.tokens);
  EXPECT_EQ(child.tokens.back(), 9);
  EXPECT_EQ(child.num_computed, 21);
  EXPECT_EQ(child.num_prompt_tokens, 20);
  EXPECT_EQ(child.sample_index, 3);
  EXPECT_EQ(child.params.seed, 77u);
  EXPECT_NE(child.admission, parent.admission);
  EXPECT_THAT(child.tables[0], ElementsAre(3, 2));
  EXPECT_THAT(parent.tables[0], ElementsAre(3, 5));
  EXPECT_EQ(slots_.logits_row(plan.rows[0]), 0);
}

// The prompt is computed once, in the plan that admits all of its choices.
TEST_F(SlotTableTest, ForksPickFromTheirParentsLogits) {
  StepPlan plan;
  plan.admits = {admit(0, 18), fork(2, 0, 18), fork(3, 0, 18)};
  plan.rows = {row(2, 18, 0, true, {0, 1}), row(0, 0, 18, true, {0, 1}),
               row(3, 18, 0, true, {0, 1})};
  apply(plan);
  EXPECT_EQ(slots_.logits_row(plan.rows[0]), 1);
  EXPECT_EQ(slots_.logits_row(plan.rows[2]), 1);
  for (const SlotId slot : {0, 2, 3}) {
    EXPECT_EQ(slots_.at(slot).num_computed, 18);
    EXPECT_EQ(slots_.at(slot).tokens.size(), 18u);
    take(slot, {slot});
  }
  plan = StepPlan();
  plan.rows = {row(3, 18, 1, true, {})};
  apply(plan);
  EXPECT_EQ(slots_.at(3).tokens.back(), 3);
  EXPECT_EQ(slots_.at(2).tokens.back(), 2);
}

TEST_F(SlotTableTest, DraftsStayAsFarAsTheyWerePicked) {
  struct Case {
    std::vector<TokenId> picks, tokens;  // tokens: from position 20 on
  };
  // Position 20 was picked; three guesses follow it.
  const Case cases[] = {
      {{31, 32, 33, 34}, {9, 31, 32, 33, 34}},  // all right, and one more
      {{31, 32, 40, 34}, {9, 31, 32, 40}},
      {{31, 41, 33, 34}, {9, 31, 41}},  // right again behind a wrong one: no use
      {{42, 32, 33, 34}, {9, 42}},
  };
  for (const Case& each : cases) {
    SlotTable slots(kLimits, kVocab, 1);
    StepPlan plan;
    plan.admits = {admit(1, 20)};
    plan.admits[0].tokens.push_back(9);
    plan.rows = {row(1, 20, 4, true, {3, 5})};
    plan.rows[0].drafts = {31, 32, 33};
    ASSERT_TRUE(slots.apply(plan).ok());
    EXPECT_EQ(slots.at(1).tokens.size(), 24u);
    slots.settle(slots.expect(1, 0, 3), each.picks);
    const Slot& slot = slots.at(1);
    const std::vector<TokenId> tail(slot.tokens.begin() + 20, slot.tokens.end());
    EXPECT_EQ(tail, each.tokens);
    EXPECT_EQ(slot.num_computed, static_cast<int>(slot.tokens.size()) - 1);
    plan = StepPlan();
    plan.rows = {row(1, slot.num_computed, 1, true, {})};
    EXPECT_TRUE(slots.apply(plan).ok());
  }
}

TEST_F(SlotTableTest, DraftsOfASlotThatWentMeanNothingToTheNextOne) {
  take(1, {9});
  StepPlan plan;
  plan.rows = {row(1, 20, 3, true, {})};
  plan.rows[0].drafts = {31, 32};
  apply(plan);
  const SlotTable::Expected expected = slots_.expect(1, 0, 2);
  plan = StepPlan();
  plan.releases = {1};
  plan.admits = {admit(1, 5)};
  plan.rows = {row(1, 0, 5, true, {0})};
  apply(plan);
  slots_.settle(expected, {31, 32, 33});
  EXPECT_EQ(slots_.at(1).tokens, std::vector<TokenId>(5, 7));
  EXPECT_EQ(slots_.at(1).num_computed, 5);
}

TEST_F(SlotTableTest, BeamsAreToldTheirTokens) {
  StepPlan plan;
  plan.admits = {admit(0, 3)};
  plan.admits[0].params.beam_width = 4;
  plan.admits[0].params.logprobs = 8;
  plan.rows = {row(0, 0, 3, true, {0})};
  apply(plan);
  plan = StepPlan();
  plan.rows = {row(0, 3, 2, true, {})};
  plan.rows[0].tokens = {11, 12};
  apply(plan);
  EXPECT_THAT(slots_.at(0).tokens, ElementsAre(7, 7, 7, 11, 12));
  EXPECT_EQ(slots_.at(0).num_computed, 5);
}

TEST_F(SlotTableTest, KeepsTheBlocksThatAPlanNames) {
  take(1, {9});
  StepPlan plan;
  plan.rows = {row(1, 20, 1, true, {6, 7})};
  plan.rows[0].keep_blocks = 0;
  apply(plan);
  EXPECT_THAT(slots_.at(1).tables[0], ElementsAre(6, 7));
}

// Slot 1 as above; slot 2 searches beams from 4 tokens, slot 3 has drafts in flight.
class BadFork : public SlotTableTest {
 protected:
  void SetUp() override {
    take(1, {9});
    StepPlan plan;
    plan.admits = {admit(2, 4), admit(3, 4)};
    plan.admits[0].params.beam_width = 2;
    plan.rows = {row(2, 0, 4, true, {0}), row(3, 0, 4, true, {1})};
    apply(plan);
    take(3, {8});
    plan = StepPlan();
    plan.rows = {row(3, 4, 2, true, {})};
    plan.rows[0].drafts = {8};
    apply(plan);
  }
};

struct Case {
  const char* name;
  std::function<void(StepPlan&)> build;
  std::vector<std::string> says;
};

class BadForkPlan : public BadFork, public testing::WithParamInterface<Case> {};

TEST_P(BadForkPlan, IsRefusedByName) {
  StepPlan plan;
  GetParam().build(plan);
  expect_refused(plan, GetParam().says);
}

// A right plan to spoil: slot 1 goes on, a fork of it picks from the same logits.
StepPlan right() {
  StepPlan plan;
  plan.admits = {fork(0, 1, 20)};
  plan.rows = {row(1, 20, 1, true, {}), row(0, 21, 0, true, {})};
  return plan;
}

TEST_F(BadFork, TheUnspoiltPlanIsRight) {
  apply(right());
}

TEST_F(BadFork, AForkWaitsForItsParentsPick) {
  slots_.expect(1, 0);
  expect_refused(right(), {"slot 0", "fork_of", "slot 1", "in flight"});
}

TEST_F(BadFork, DraftsWaitForTheTokenBeforeThem) {
  StepPlan plan;
  plan.rows = {row(1, 20, 1, true, {})};
  apply(plan);
  slots_.expect(1, 0);
  plan.rows = {row(1, 21, 2, true, {})};
  plan.rows[0].drafts = {4};
  expect_refused(plan, {"slot 1", "drafts", "in flight"});
}

const Case kCases[] = {
    {"of_nobody", [](StepPlan& p) { p = right(), p.admits[0].fork_of = 0; }, {"slot 0", "fork_of"}},
    {"of_outside",
     [](StepPlan& p) { p = right(), p.admits[0].fork_of = 4; },
     {"slot 0", "fork_of", "slot 4"}},
    {"of_negative",
     [](StepPlan& p) { p = right(), p.admits[0].fork_of = -2; },
     {"slot 0", "fork_of", "slot -2"}},
    {"of_released", [](StepPlan& p) { p = right(), p.releases = {1}; }, {"slot 0", "fork_of"}},
    {"of_drafting",
     [](StepPlan& p) { p.admits = {fork(0, 3, 4)}; },
     {"slot 0", "fork_of", "slot 3", "in flight"}},
    {"with_tokens",
     [](StepPlan& p) { p = right(), p.admits[0].tokens = {1}; },
     {"slot 0", "tokens", "parent"}},
    {"other_prompt",
     [](StepPlan& p) { p = right(), p.admits[0].num_prompt_tokens = 19; },
     {"slot 0", "num_prompt_tokens", "19", "20"}},
    {"bad_params",
     [](StepPlan& p) { p = right(), p.admits[0].params.min_p = 7; },
     {"slot 0", "params", "min_p"}},
    {"no_tokens_no_fork",
     [](StepPlan& p) { p.rows = {row(1, 20, 0, true, {})}; },
     {"slot 1", "num_tokens", "no fork"}},
    {"no_tokens_later",
     [](StepPlan& p) {
       p.admits = {admit(0, 5)};
       p.rows = {row(0, 5, 0, true, {4}), row(1, 20, 1, true, {})};
     },
     {"slot 0", "num_tokens", "no fork"}},
    {"no_tokens_no_pick",
     [](StepPlan& p) { p = right(), p.rows[1].samples = false; },
     {"slot 0", "num_tokens", "pick"}},
    {"no_tokens_but_some",
     [](StepPlan& p) {
       p.admits = {fork(0, 2, 4)};
       p.admits[0].params.beam_width = 2;
       p.rows = {row(2, 4, 1, true, {}), row(0, 5, 0, true, {})};
       for (PlanRow& row : p.rows) row.tokens = {6};
     },
     {"slot 0", "num_tokens", "bring none"}},
    {"parent_without_row",
     [](StepPlan& p) { p = right(), p.rows.erase(p.rows.begin()); },
     {"slot 0", "num_tokens", "slot 1", "no row"}},
    {"parent_does_not_pick",
     [](StepPlan& p) { p = right(), p.rows[0].samples = false; },
     {"slot 0", "num_tokens", "slot 1", "pick"}},
    {"parent_has_drafts",
     [](StepPlan& p) {
       p = right();
       p.rows[0].drafts = {4};
       p.rows[0].num_tokens = 2;
       p.rows[1].first_position = 22;
     },
     {"slot 0", "num_tokens", "slot 1"}},
    {"parent_is_such_a_fork",
     [](StepPlan& p) {
       p = right();
       p.releases = {2};
       p.admits.push_back(fork(2, 0, 20));
       p.rows.push_back(row(2, 21, 0, true, {}));
     },
     {"slot 2", "num_tokens", "slot 0"}},
    {"ends_elsewhere",
     [](StepPlan& p) { p = right(), p.rows[1].first_position = 20; },
     {"slot 0", "first_position", "20", "21"}},
    {"no_blocks",
     [](StepPlan& p) { p = right(), p.rows[1].keep_blocks = 1; },
     {"slot 0", "new_blocks", "16", "21"}},
    {"tokens_of_a_sampler",
     [](StepPlan& p) {
       p.rows = {row(1, 20, 2, true, {})};
       p.rows[0].tokens = {4};
     },
     {"slot 1", "tokens", "beams"}},
    {"beam_without_token",
     [](StepPlan& p) { p.rows = {row(2, 4, 1, true, {})}; },
     {"slot 2", "num_tokens", "4 tokens"}},
    {"beam_bad_id",
     [](StepPlan& p) {
       p.rows = {row(2, 4, 1, true, {})};
       p.rows[0].tokens = {kVocab};
     },
     {"slot 2", "tokens", "id 50"}},
    {"beam_too_long",
     [](StepPlan& p) {
       p.rows = {row(2, 4, 1, false, {})};
       p.rows[0].tokens.assign(97, 1);
     },
     {"slot 2", "tokens", "101", "100"}},
    {"beam_drafts",
     [](StepPlan& p) {
       p.rows = {row(2, 4, 2, true, {})};
       p.rows[0].tokens = {4};
       p.rows[0].drafts = {4};
     },
     {"slot 2", "drafts", "beams"}},
    {"drafts_bad_id",
     [](StepPlan& p) {
       p.rows = {row(1, 20, 2, true, {})};
       p.rows[0].drafts = {-1};
     },
     {"slot 1", "drafts", "id -1"}},
    {"drafts_too_long",
     [](StepPlan& p) {
       p.admits = {admit(0, 98)};
       p.rows = {row(0, 90, 11, true, {0, 1, 2, 3, 4, 5, 6})};
       p.rows[0].drafts = {1, 1, 1};
     },
     {"slot 0", "drafts", "101", "100"}},
    {"drafts_to_the_end",  // there is no place for the last pick
     [](StepPlan& p) {
       p.admits = {admit(0, 98)};
       p.rows = {row(0, 90, 10, true, {0, 1, 2, 3, 4, 5, 6})};
       p.rows[0].drafts = {1, 1};
     },
     {"slot 0", "samples", "100"}},
    {"drafts_do_not_pick",
     [](StepPlan& p) {
       p.rows = {row(1, 20, 2, false, {})};
       p.rows[0].drafts = {4};
     },
     {"slot 1", "drafts", "pick"}},
    {"only_drafts",
     [](StepPlan& p) {
       p.rows = {row(1, 21, 1, true, {})};
       p.rows[0].drafts = {4};
     },
     {"slot 1", "drafts", "before them"}},
    {"drafts_not_all_computed",
     [](StepPlan& p) {
       p.rows = {row(1, 20, 2, true, {})};
       p.rows[0].drafts = {4, 5};
     },
     {"slot 1", "drafts"}},
    {"drafts_under_penalties",
     [](StepPlan& p) {
       p.admits = {admit(0, 4)};
       p.admits[0].params.presence_penalty = 1.0f;
       p.rows = {row(0, 0, 5, true, {4})};
       p.rows[0].drafts = {4};
     },
     {"slot 0", "drafts", "logits"}},
    {"drafting_gets_a_row",
     [](StepPlan& p) { p.rows = {row(3, 6, 1, true, {})}; },
     {"slot 3", "rows", "drafts"}},
};
INSTANTIATE_TEST_SUITE_P(Plans, BadForkPlan, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace quire::test
