// Speculation changes no token and no bit: whatever is guessed, what comes out is what one token a
// step gives, only sooner.
#include <algorithm>
#include <functional>
#include <random>

#include "tests/worker/runner/plan_cases.h"

namespace quire::test {
namespace {

using Drafts = PlanTest;

TokenId wrong(TokenId right) {
  return right == 0 ? 1 : right - 1;
}

// What to guess when `done` of `right` are known.
using Guess = std::function<std::vector<TokenId>(const std::vector<TokenId>& right, int done)>;

std::vector<TokenId> next(const std::vector<TokenId>& right, int done, int count) {
  const int end = std::min(done + count, static_cast<int>(right.size()) - 1);
  return {right.begin() + done, right.begin() + std::max(done, end)};
}

absl::Status run_with(Conductor& conductor, SlotId slot, const Prompt& prompt, const Output& want,
                      const Guess& guess) {
  conductor.admit(slot, prompt);
  conductor.grant(slot, static_cast<int>(prompt.ids.size()));
  for (;;) {
    if (absl::Status status = conductor.run(); !status.ok()) return status;
    const auto done = static_cast<int>(conductor.output(slot).tokens.size());
    if (done >= static_cast<int>(want.tokens.size())) break;
    conductor.guess(slot, guess(want.tokens, done));
  }
  expect_same(conductor.output(slot), want);
  return conductor.release_all();
}

struct Way {
  const char* name;
  int steps;  // for 12 tokens, the first of which comes with the prompt
  Guess guess;
};

const Way kWays[] = {
    {"right", 4, [](const auto& right, int done) { return next(right, done, 3); }},
    {"all_wrong", 12,
     [](const auto& right, int done) {
       auto drafts = next(right, done, 3);
       for (TokenId& token : drafts) token = wrong(token);
       return drafts;
     }},
    {"wrong_in_the_middle", 7,
     [](const auto& right, int done) {
       auto drafts = next(right, done, 4);
       if (drafts.size() > 1) drafts[1] = wrong(drafts[1]);
       return drafts;
     }},
    {"none", 12, [](const auto&, int) { return std::vector<TokenId>(); }},
};

// Prompts that end before, at and behind the border of a block, so that drafts cross one.
TEST_P(Drafts, ChangeNoTokenAndNoBit) {
  for (const int length : {14, 15, 16, 17, 29}) {
    if (slow() && length != 14) continue;
    for (const bool samples : {false, true}) {
      const auto ids = random_ids(kSeed + static_cast<std::uint64_t>(length), length);
      const Prompt prompt = samples ? drawn(ids, 12, 17) : greedy(ids, 12);
      const Output want = plain({prompt})[0];
      for (const Way& way : kWays) {
        if (slow() && (!samples || way.steps == 12)) continue;
        SCOPED_TRACE(testing::Message()
                     << way.name << " behind " << length << ", " << (samples ? "drawn" : "greedy"));
        Conductor conductor(*group_);
        const absl::Status status = run_with(conductor, 3, prompt, want, way.guess);
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_EQ(conductor.num_steps(), way.steps + 1);  // and the one that releases
      }
    }
  }
}

// Rows with guesses of any number and quality beside rows that decode and a prompt in chunks.
TEST_P(Drafts, AmongOtherRows) {
  std::mt19937_64 random(kSeed);
  const int tokens = slow() ? 4 : 24, num_chunks = slow() ? 3 : 10;
  std::vector<Prompt> prompts;
  for (int i = 0; i < 4; ++i) {
    const auto ids = random_ids(kSeed + static_cast<std::uint64_t>(40 + i), 13 + 5 * i);
    prompts.push_back(i % 2 == 0 ? greedy(ids, tokens) : drawn(ids, tokens, 8));
  }
  const std::vector<Output> want = plain(prompts);
  Conductor conductor(*group_);
  for (SlotId slot = 0; slot < 4; ++slot) {
    const Prompt& prompt = prompts[static_cast<std::size_t>(slot)];
    conductor.admit(slot, prompt);
    conductor.grant(slot, static_cast<int>(prompt.ids.size()));
  }
  const auto long_prompt = random_ids(kSeed + 9, 7 * num_chunks);
  conductor.admit(6, greedy(long_prompt, 1));
  for (int chunk = 0;; ++chunk) {
    if (chunk < num_chunks) conductor.grant(6, 7);
    const absl::Status status = conductor.run();
    ASSERT_TRUE(status.ok()) << status;
    bool any = false;
    for (SlotId slot = 0; slot < 4; ++slot) {
      const std::vector<TokenId>& right = want[static_cast<std::size_t>(slot)].tokens;
      const auto done = static_cast<int>(conductor.output(slot).tokens.size());
      if (done >= static_cast<int>(right.size())) continue;
      any = true;
      if (slot == 0) {  // decodes
        conductor.grant(slot, 1);
        continue;
      }
      std::vector<TokenId> drafts = next(right, done, static_cast<int>(random() % 7));
      for (TokenId& token : drafts) token = random() % 3 == 0 ? wrong(token) : token;
      conductor.guess(slot, drafts);
    }
    if (!any && chunk + 1 >= num_chunks) break;
  }
  for (SlotId slot = 0; slot < 4; ++slot) {
    SCOPED_TRACE(testing::Message() << "slot " << slot);
    expect_same(conductor.output(slot), want[static_cast<std::size_t>(slot)]);
  }
  ASSERT_TRUE(conductor.release_all().ok());
  expect_same(conductor.output(6), plain({greedy(long_prompt, 1)})[0]);
}

// More picks than the group may have sequences.
TEST_P(Drafts, ManyInOneRow) {
  const int tokens = slow() ? 12 : 64;
  const Prompt prompt = greedy(random_ids(kSeed, 3), tokens);
  const Output want = plain({prompt})[0];
  Conductor conductor(*group_);
  const absl::Status status =
      run_with(conductor, 0, prompt, want,
               [tokens](const auto& right, int done) { return next(right, done, tokens); });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(conductor.num_steps(), 3);
}

// So many that the CPU's threads divide them by sequences and go through a layer with one group of
// them after the other; in every step each has another number of guesses.
TEST_P(Drafts, OfManyRows) {
  const int rows = slow() ? 3 : 24, tokens = slow() ? 4 : 16;
  GroupOptions options = GetParam().options;
  options.limits.max_num_seqs = rows;
  options.dtype = "auto";
  options.threads = 2;
  auto group = RankGroup::open(scratch_ / "tiny.gguf", options);
  ASSERT_TRUE(group.ok()) << group.status();
  std::vector<Prompt> prompts;
  std::vector<Output> want;
  for (int i = 0; i < rows; ++i) {
    const auto ids = random_ids(kSeed + static_cast<std::uint64_t>(i), 3 + 5 * i % 37);
    prompts.push_back(i % 2 == 0 ? greedy(ids, tokens) : drawn(ids, tokens, 8));
    auto alone = generate(**group, {prompts.back()});
    ASSERT_TRUE(alone.ok()) << alone.status();
    want.push_back((*alone)[0]);
  }
  Conductor conductor(**group);
  for (SlotId slot = 0; slot < rows; ++slot) {
    const Prompt& prompt = prompts[static_cast<std::size_t>(slot)];
    conductor.admit(slot, prompt);
    conductor.grant(slot, static_cast<int>(prompt.ids.size()));
    ASSERT_TRUE(conductor.run().ok());
  }
  std::mt19937_64 random(kSeed);
  for (bool any = true; any;) {
    any = false;
    for (SlotId slot = 0; slot < rows; ++slot) {
      const std::vector<TokenId>& right = want[static_cast<std::size_t>(slot)].tokens;
      const auto done = static_cast<int>(conductor.output(slot).tokens.size());
      if (done >= static_cast<int>(right.size())) continue;
      any = true;
      std::vector<TokenId> drafts = next(right, done, (slot + conductor.num_steps()) % 3);
      for (TokenId& token : drafts) token = random() % 3 == 0 ? wrong(token) : token;
      conductor.guess(slot, drafts);
    }
    const absl::Status status = conductor.run();
    ASSERT_TRUE(status.ok()) << status;
  }
  for (SlotId slot = 0; slot < rows; ++slot) {
    SCOPED_TRACE(testing::Message() << "slot " << slot);
    expect_same(conductor.output(slot), want[static_cast<std::size_t>(slot)]);
  }
  ASSERT_TRUE(conductor.release_all().ok());
}

INSTANTIATE_TEST_SUITE_P(Groups, Drafts, testing::ValuesIn(plan_cases()), name_of_case);

}  // namespace
}  // namespace quire::test
