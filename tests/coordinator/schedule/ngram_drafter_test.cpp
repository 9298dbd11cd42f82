// The drafter against a plain search through all tokens, on random texts, repeated passages and
// tokens chosen to collide in its table.
#include "coordinator/schedule/ngram_drafter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"

namespace quire::test {
namespace {

using Tokens = std::vector<TokenId>;

NgramDrafter drafter_of(const Tokens& tokens, int min_n, int max_n) {
  NgramDrafter drafter(min_n, max_n);
  drafter.extend(tokens);
  return drafter;
}

// The definition.
Tokens plain_draft(const Tokens& tokens, int min_n, int max_n, int max_tokens) {
  const int size = static_cast<int>(tokens.size());
  for (int n = max_n; n >= min_n; --n) {
    for (int end = size - 1; end >= n; --end) {  // of the earlier place, exclusive
      if (!std::equal(tokens.begin() + end - n, tokens.begin() + end, tokens.end() - n)) continue;
      Tokens drafts;
      Tokens longer = tokens;
      while (static_cast<int>(drafts.size()) < max_tokens) {
        drafts.push_back(longer[static_cast<std::size_t>(end) + drafts.size()]);
        longer.push_back(drafts.back());
      }
      return drafts;
    }
  }
  return {};
}

TEST(NgramDrafter, FindsWhatAPlainSearchFinds) {
  for (unsigned seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    const int min_n = 1 + static_cast<int>(random() % 3);
    const int max_n = min_n + static_cast<int>(random() % 4);
    const unsigned vocab = 2 + random() % 30;
    NgramDrafter drafter(min_n, max_n);
    Tokens tokens;
    int found = 0;
    for (int i = 0; i < 600; ++i) {
      const Tokens got = drafter.draft(tokens, 5);
      ASSERT_EQ(got, plain_draft(tokens, min_n, max_n, 5)) << "after " << i << " tokens";
      if (!got.empty()) ++found;
      tokens.push_back(static_cast<TokenId>(random() % vocab));
      drafter.append(tokens.back());
    }
    EXPECT_GT(found, 0);
    EXPECT_EQ(drafter.num_tokens(), 600);
  }
}

TEST(NgramDrafter, ARepeatedPassageIsDraftedToItsEnd) {
  std::mt19937 random(7);
  Tokens passage, tokens;
  for (int i = 0; i < 200; ++i) passage.push_back(static_cast<TokenId>(random() % 50'000));
  for (int i = 0; i < 5000; ++i) tokens.push_back(static_cast<TokenId>(50'000 + random() % 50'000));
  tokens.insert(tokens.begin() + 2000, passage.begin(), passage.end());
  tokens.insert(tokens.end(), passage.begin(), passage.begin() + 3);
  NgramDrafter drafter = drafter_of(tokens, 3, 4);
  std::size_t at = 3;
  int steps = 0;
  while (at < passage.size()) {
    const Tokens drafts = drafter.draft(tokens, 8);
    ASSERT_EQ(drafts.size(), 8u);
    for (std::size_t i = 0; i < drafts.size() && at < passage.size(); ++i, ++at) {
      ASSERT_EQ(drafts[i], passage[at]);
      tokens.push_back(drafts[i]);
      drafter.append(drafts[i]);
    }
    ++steps;
  }
  EXPECT_EQ(steps, 25);
}

TEST(NgramDrafter, TheLatestPlaceOfTheLongestMatchCounts) {
  //             1 2 3 -> 7, 9 2 3 -> 8 (later, but shorter), then 1 2 3 again
  EXPECT_EQ(drafter_of({1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3}, 2, 3)
                .draft(Tokens{1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3}, 1),
            Tokens{7});
  EXPECT_EQ(drafter_of({1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3}, 2, 2)
                .draft(Tokens{1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3}, 1),
            Tokens{8});
}

TEST(NgramDrafter, APeriodGoesOn) {
  const Tokens tokens = {9, 4, 5, 6, 4, 5, 6, 4, 5};
  EXPECT_EQ(drafter_of(tokens, 2, 4).draft(tokens, 7), (Tokens{6, 4, 5, 6, 4, 5, 6}));
  const Tokens same = {3, 3, 3};
  EXPECT_EQ(drafter_of(same, 2, 2).draft(same, 3), (Tokens{3, 3, 3}));
}

TEST(NgramDrafter, NothingIsDraftedWithoutAnEarlierPlace) {
  EXPECT_TRUE(NgramDrafter(1, 3).draft({}, 4).empty());
  for (const Tokens& tokens : {Tokens{1}, Tokens{1, 2}, Tokens{1, 2, 3, 4, 2, 5, 4}}) {
    EXPECT_TRUE(drafter_of(tokens, 2, 3).draft(tokens, 4).empty());
  }
  const Tokens twice = {1, 2, 1, 2};
  EXPECT_TRUE(drafter_of(twice, 2, 3).draft(twice, 0).empty());
  EXPECT_FALSE(drafter_of(twice, 2, 3).draft(twice, 1).empty());
}

// Bigrams of which each has the tag of another one.
std::vector<std::pair<Tokens, Tokens>> collisions(std::size_t count) {
  std::vector<std::pair<Tokens, Tokens>> found;
  std::unordered_map<std::uint32_t, Tokens> seen;
  std::mt19937 random(3);
  while (found.size() < count) {
    const Tokens bigram = {static_cast<TokenId>(random() >> 1),
                           static_cast<TokenId>(random() >> 1)};
    const auto [at, is_new] = seen.emplace(NgramDrafter::tag(bigram), bigram);
    if (!is_new && at->second != bigram) found.push_back({at->second, bigram});
  }
  return found;
}

TEST(NgramDrafter, ACollisionIsNoMatch) {
  for (const auto& [a, b] : collisions(5)) {
    ASSERT_EQ(NgramDrafter::tag(a), NgramDrafter::tag(b));
    Tokens tokens = {a[0], a[1], 1, 2, b[0], b[1]};
    EXPECT_TRUE(drafter_of(tokens, 2, 2).draft(tokens, 2).empty());
    // Only the later of both is remembered: a draft is lost, none is wrong.
    tokens = {a[0], a[1], 1, b[0], b[1], 2, b[0], b[1]};
    EXPECT_EQ(drafter_of(tokens, 2, 2).draft(tokens, 1), Tokens{2});
    tokens = {a[0], a[1], 1, b[0], b[1], 2, a[0], a[1]};
    EXPECT_TRUE(drafter_of(tokens, 2, 2).draft(tokens, 1).empty());
  }
}

// Bigrams whose tags all end in the same bits lie in one window of the table: the latest stay.
TEST(NgramDrafter, CrowdedTagsLoseOldPlacesOnly) {
  std::mt19937 random(11);
  Tokens tokens;
  while (tokens.size() < 600) {
    const Tokens bigram = {static_cast<TokenId>(random() >> 1),
                           static_cast<TokenId>(random() >> 1)};
    if ((NgramDrafter::tag(bigram) & 0xfff) != 0) continue;
    tokens.insert(tokens.end(), bigram.begin(), bigram.end());
  }
  NgramDrafter drafter = drafter_of(tokens, 2, 2);
  int found = 0;
  for (std::size_t i = 0; i + 2 < 600; i += 2) {
    NgramDrafter again = drafter;
    Tokens longer = tokens;
    for (const std::size_t k : {i, i + 1}) {
      longer.push_back(tokens[k]);
      again.append(tokens[k]);
    }
    const Tokens drafts = again.draft(longer, 1);
    if (drafts.empty()) continue;
    EXPECT_EQ(drafts, Tokens{tokens[i + 2]});
    ++found;
    EXPECT_GT(i, 400u);  // a late one
  }
  EXPECT_GE(found, 30);
}

TEST(NgramDrafter, ALongTextIsRemembered) {
  std::mt19937 random(5);
  Tokens tokens;
  for (int i = 0; i < 100'000; ++i) tokens.push_back(static_cast<TokenId>(random() >> 1));
  NgramDrafter drafter = drafter_of(tokens, 2, 4);
  int found = 0;
  for (std::size_t i = 0; i < 1000; ++i) {
    const std::size_t at = 97 * i + random() % 90;
    for (std::size_t k = at; k < at + 4; ++k) {
      tokens.push_back(tokens[k]);
      drafter.append(tokens[k]);
    }
    if (drafter.draft(tokens, 1) == Tokens{tokens[at + 4]}) ++found;
  }
  EXPECT_GE(found, 999);
}

}  // namespace
}  // namespace quire::test
