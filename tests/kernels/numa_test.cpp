// Nodes as the kernel lists them, and which CPUs each rank keeps to.
#include "kernels/cpu/numa.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace quire::cpu {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class NumaTest : public testing::Test {
 protected:
  NumaTest() {
    std::string name = (std::filesystem::temp_directory_path() / "quire-numa-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~NumaTest() override { std::filesystem::remove_all(folder_); }
  void add(const std::string& node, const std::string& cpus) {
    std::filesystem::create_directory(folder_ / node);
    std::ofstream(folder_ / node / "cpulist") << cpus << "\n";
  }
  std::filesystem::path folder_;
};

TEST_F(NumaTest, NodesAreReadInOrderWithTheCpusThatAreOurs) {
  add("node10", "12-13");
  add("node2", "0-1,4,6-7");
  add("node3", "8-11");
  add("node4", "");  // memory alone
  add("power", "0-1");
  const auto nodes = numa_nodes({0, 4, 6, 7, 12, 13, 14}, folder_);
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].id, 2);
  EXPECT_THAT(nodes[0].cpus, ElementsAre(0, 4, 6, 7));
  EXPECT_EQ(nodes[1].id, 10);
  EXPECT_THAT(nodes[1].cpus, ElementsAre(12, 13));
  EXPECT_THAT(numa_nodes({0, 1}, folder_ / "missing"), IsEmpty());
}

TEST(NumaRanks, AreDealtInOrder) {
  const std::vector<NumaNode> two = {{0, {0, 1}}, {1, {2, 3}}};
  EXPECT_THAT(cpus_of_rank(two, 0, 2), ElementsAre(0, 1));
  EXPECT_THAT(cpus_of_rank(two, 1, 2), ElementsAre(2, 3));
  EXPECT_THAT(cpus_of_rank(two, 0, 1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(cpus_of_rank(two, 1, 3), ElementsAre(0, 1));
  EXPECT_THAT(cpus_of_rank(two, 2, 3), ElementsAre(2, 3));
  EXPECT_THAT(cpus_of_rank(two, 2, 4), ElementsAre(2, 3));
  const std::vector<NumaNode> four = {{0, {0}}, {1, {1}}, {2, {2}}, {3, {3}}};
  EXPECT_THAT(cpus_of_rank(four, 1, 2), ElementsAre(2, 3));
  EXPECT_THAT(cpus_of_rank(four, 2, 3), ElementsAre(2, 3));
  EXPECT_THAT(cpus_of_rank({{0, {0, 1}}}, 0, 2), IsEmpty()) << "one node: nothing to choose";
  EXPECT_THAT(cpus_of_rank({}, 0, 1), IsEmpty());
}

TEST(NumaRanks, AThreadAndThoseItStartsKeepToTheirCpus) {
  std::thread([] {
    const std::vector<int> before = cpus_of_this_thread();
    ASSERT_FALSE(before.empty());
    keep_to({});
    EXPECT_EQ(cpus_of_this_thread(), before);
    keep_to({before.back()});
    std::thread([&] { EXPECT_THAT(cpus_of_this_thread(), ElementsAre(before.back())); }).join();
  }).join();
}

}  // namespace
}  // namespace quire::cpu
