#include "coordinator/schedule/token_list.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace quire {
namespace {

TEST(TokenList, IsTheSameHoweverOftenAllOfItIsAskedFor) {
  std::mt19937 random(3);
  for (const int rarely : {1, 3, 8, 9, 40}) {
    std::vector<TokenId> expected = {7, 8, 9};
    TokenList tokens(expected);
    for (TokenId next = 0; next < 200; ++next) {
      if (random() % static_cast<unsigned>(rarely) == 0) {
        ASSERT_EQ(tokens.all(), expected);
      }
      tokens.push_back(next);
      expected.push_back(next);
      ASSERT_EQ(tokens.size(), static_cast<int>(expected.size()));
      ASSERT_EQ(tokens.back(), next);
    }
    ASSERT_EQ(tokens.all(), expected);
    ASSERT_EQ(tokens.back(), expected.back());
  }
}

}  // namespace
}  // namespace quire
