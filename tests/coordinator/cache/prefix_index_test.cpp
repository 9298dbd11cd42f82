#include "coordinator/cache/prefix_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>
#include <vector>

#include "tests/coordinator/cache/tokens.h"

namespace quire {
namespace {

TEST(PrefixIndex, ChildrenAreFoundWhicheverOfThemGoes) {
  PrefixIndex index(4, 17);
  const NodeId root = index.root(kScope);
  const NodeId first = index.insert(root, counting(1, 4));
  const NodeId second = index.insert(root, counting(2, 4));
  const NodeId third = index.insert(root, counting(3, 4));
  EXPECT_EQ(index.find_child(root, counting(1, 4)), first);
  EXPECT_EQ(index.find_child(root, counting(2, 4)), second);
  EXPECT_EQ(index.find_child(root, counting(3, 4)), third);
  EXPECT_EQ(index.find_child(root, counting(4, 4)), kNoNode);
  EXPECT_EQ(index.find_child(first, counting(2, 4)), kNoNode);

  index.remove(first);
  EXPECT_EQ(index.find_child(root, counting(1, 4)), kNoNode);
  EXPECT_EQ(index.find_child(root, counting(2, 4)), second);
  const NodeId fourth = index.insert(root, counting(4, 4));
  index.remove(second);
  EXPECT_EQ(index.find_child(root, counting(2, 4)), kNoNode);
  EXPECT_EQ(index.find_child(root, counting(3, 4)), third);
  EXPECT_EQ(index.find_child(root, counting(4, 4)), fourth);
}

// Against a map, with few contents and little depth, so that every shape of a family comes up.
TEST(PrefixIndex, FindsWhatIsThereAndNothingElse) {
  PrefixIndex index(2, 5);
  std::mt19937 random(1);
  std::map<std::pair<NodeId, TokenId>, NodeId> known;
  const auto pick = [&] {
    auto it = known.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random() % known.size()));
    return it;
  };
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 || known.empty()) {
      const NodeId parent =
          known.empty() || random() % 3 == 0 ? index.root(kScope) : pick()->second;
      const auto content = static_cast<TokenId>(random() % 4);
      const auto found = known.find({parent, content});
      ASSERT_EQ(index.find_child(parent, counting(content, 2)),
                found == known.end() ? kNoNode : found->second);
      if (found == known.end() && known.size() < 64) {
        known[{parent, content}] = index.insert(parent, counting(content, 2));
      }
    } else if (const auto gone = pick(); index.at(gone->second).first_child == kNoNode) {
      index.remove(gone->second);
      known.erase(gone);
    }
    ASSERT_EQ(index.num_nodes(), static_cast<int>(known.size()));
  }
  for (const auto& [place, node] : known) {
    EXPECT_EQ(index.find_child(place.first, counting(place.second, 2)), node);
  }
}

}  // namespace
}  // namespace quire
