#include "coordinator/engine/prefix_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

namespace quire {
namespace {

class PrefixFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "prefixes-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(PrefixFileTest, WhatIsWrittenIsReadForTheSameModel) {
  const std::string index("\0index\xff of any bytes", 20);
  ASSERT_TRUE(write_prefix_file(folder_, 7, {.id = 42, .index = index}).ok());
  const auto read = read_prefix_file(folder_, 7);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->id, 42u);
  EXPECT_EQ(read->index, index);
  const auto other = read_prefix_file(folder_, 8);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->id, 0u);
  ASSERT_TRUE(write_prefix_file(folder_, 7, {.id = 43, .index = "later"}).ok());
  EXPECT_EQ(read_prefix_file(folder_, 7)->index, "later");
}

TEST_F(PrefixFileTest, ItIsForItsOwnersEyes) {
  ASSERT_TRUE(write_prefix_file(folder_, 7, {.id = 1, .index = "x"}).ok());
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    struct stat facts = {};
    ASSERT_EQ(stat(entry.path().c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600u);
  }
}

TEST_F(PrefixFileTest, AFolderThatCannotBeUsedIsASentence) {
  const auto written = write_prefix_file(folder_ + "/missing", 7, {.id = 1, .index = "x"});
  EXPECT_THAT(std::string(written.message()), testing::HasSubstr("--kv-offload-path"));
  EXPECT_TRUE(read_prefix_file(folder_ + "/missing", 7).ok());  // nothing was saved there
}

}  // namespace
}  // namespace quire
