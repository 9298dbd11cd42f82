#include "worker/loader/content_digest.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace quire {
namespace {

class ContentDigestTest : public testing::Test {
 protected:
  void write(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }
  std::uint64_t digest() {
    ModelFile file;
    file.files = {path_};
    const auto digest = content_digest(file);
    EXPECT_TRUE(digest.ok()) << digest.status();
    return digest.value_or(0);
  }
  void TearDown() override { std::remove(path_.c_str()); }

  const std::string path_ = testing::TempDir() + "content_digest_test.bin";
};

TEST_F(ContentDigestTest, EveryByteOfASmallModelCounts) {
  const std::string bytes(50000, 'w');
  write(bytes);
  const std::uint64_t original = digest();
  EXPECT_EQ(digest(), original);
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{4095}, std::size_t{30001}, bytes.size() - 1}) {
    std::string other = bytes;
    other[at] = 'x';
    write(other);
    EXPECT_NE(digest(), original) << at;
  }
  write(bytes + 'w');
  EXPECT_NE(digest(), original);
}

TEST_F(ContentDigestTest, AMissingFileIsNamed) {
  ModelFile file;
  file.files = {path_ + ".missing"};
  EXPECT_NE(std::string(content_digest(file).status().message()).find(path_), std::string::npos);
}

}  // namespace
}  // namespace quire
