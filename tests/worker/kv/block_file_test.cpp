// A file of KV blocks across lives: what is found again, and everything after which nothing is.
#include "worker/kv/block_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tests/worker/tiny_model.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::size_t kBytes = 1000;  // no multiple of anything
constexpr int kSlots = 7;
constexpr std::uint64_t kId = 0xc0ffee0000000007;

using Block = std::vector<unsigned char>;

Block block_of(int seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  Block block(kBytes);
  for (unsigned char& byte : block) byte = static_cast<unsigned char>(random());
  return block;
}

class BlockFileTest : public testing::Test {
 protected:
  std::unique_ptr<BlockFile> open(const BlockFileLayout& layout) {
    auto file = BlockFile::open(path(), layout, absl::ZeroDuration());
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }
  std::unique_ptr<BlockFile> open() { return open(layout_); }
  std::string path() const { return scratch_ / "blocks"; }

  // One whole life: every slot but the last is written, and put down under kId.
  void live_and_seal() {
    const auto file = open();
    ASSERT_TRUE(file->unseal().ok());
    file->clear();
    for (int slot = 0; slot + 1 < kSlots; ++slot) {
      ASSERT_TRUE(file->write(slot, block_of(slot).data()).ok());
    }
    ASSERT_TRUE(file->seal(kId).ok());
  }
  void change_byte(std::streamoff at) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const int was = file.get();
    ASSERT_NE(was, EOF) << at;
    file.seekp(at);
    file.put(static_cast<char>(was ^ 0x10));
    ASSERT_TRUE(file.good());
  }

  BlockFileLayout layout_{0x1234, 0x5678, kBytes, kSlots};
  test::ScratchFolder scratch_;
};

TEST_F(BlockFileTest, ALaterLifeFindsWhatWasSealed) {
  live_and_seal();
  const auto file = open();
  EXPECT_EQ(file->saved(), kId);
  for (int slot = 0; slot < kSlots; ++slot) {
    EXPECT_EQ(file->holds(slot), slot + 1 < kSlots) << slot;
    if (!file->holds(slot)) continue;
    Block got(kBytes);
    ASSERT_TRUE(file->read(slot, got.data()).ok());
    EXPECT_EQ(got, block_of(slot)) << slot;
  }
}

TEST_F(BlockFileTest, KeptBlocksAndNewOnesAreSealedTogether) {
  live_and_seal();
  {
    const auto file = open();
    ASSERT_TRUE(file->unseal().ok());
    ASSERT_TRUE(file->write(2, block_of(102).data()).ok());
    ASSERT_TRUE(file->seal(kId + 1).ok());
  }
  const auto file = open();
  EXPECT_EQ(file->saved(), kId + 1);
  Block got(kBytes);
  ASSERT_TRUE(file->read(2, got.data()).ok());
  EXPECT_EQ(got, block_of(102));
  ASSERT_TRUE(file->read(3, got.data()).ok());
  EXPECT_EQ(got, block_of(3));
}

TEST_F(BlockFileTest, ALifeThatEndsInNoOrderLeavesNothing) {
  live_and_seal();
  {
    const auto file = open();
    ASSERT_EQ(file->saved(), kId);
    ASSERT_TRUE(file->unseal().ok());
    EXPECT_EQ(file->saved(), 0u);
  }
  EXPECT_EQ(open()->saved(), 0u);
  { EXPECT_TRUE(open()->write(1, block_of(1).data()).ok()); }  // never sealed
  EXPECT_EQ(open()->saved(), 0u);
  for (int slot = 0; slot < kSlots; ++slot) EXPECT_FALSE(open()->holds(slot));
}

TEST_F(BlockFileTest, BlocksOfAnythingElseAreVoid) {
  struct Case {
    const char* name;
    BlockFileLayout layout;
  };
  const Case cases[] = {{"another model", {0x1235, 0x5678, kBytes, kSlots}},
                        {"another layout", {0x1234, 0x5679, kBytes, kSlots}},
                        {"larger blocks", {0x1234, 0x5678, kBytes + 8, kSlots}},
                        {"more blocks", {0x1234, 0x5678, kBytes, kSlots + 1}},
                        {"fewer blocks", {0x1234, 0x5678, kBytes, kSlots - 1}}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    live_and_seal();
    {
      const auto other = open(c.layout);
      EXPECT_EQ(other->saved(), 0u);
      EXPECT_FALSE(other->holds(0));
    }
    EXPECT_EQ(open()->saved(), 0u);  // it was overwritten
  }
}

TEST_F(BlockFileTest, AChangedBlockIsNotGivenOut) {
  live_and_seal();
  const auto size = static_cast<std::streamoff>(fs::file_size(path()));
  change_byte(size - static_cast<std::streamoff>(5 * kBytes) + 17);  // in slot 2
  const auto file = open();
  EXPECT_EQ(file->saved(), kId);
  Block got(kBytes);
  EXPECT_TRUE(file->read(1, got.data()).ok());
  const absl::Status status = file->read(2, got.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("KV block 2 of " + path()));
}

TEST_F(BlockFileTest, ABlockInAnothersPlaceIsNotGivenOut) {
  live_and_seal();
  const auto first = static_cast<std::streamoff>(fs::file_size(path()) - kSlots * kBytes);
  std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
  const Block third = block_of(3);
  file.seekp(first);
  file.write(reinterpret_cast<const char*>(third.data()), kBytes);
  file.close();
  Block got(kBytes);
  EXPECT_EQ(open()->read(0, got.data()).code(), absl::StatusCode::kDataLoss);
}

// Header and checksums, byte by byte: whatever is changed there, nothing is found.
TEST_F(BlockFileTest, AChangedHeadIsVoid) {
  live_and_seal();
  fs::copy_file(path(), scratch_ / "whole");
  std::vector<std::streamoff> at;
  for (int i = 0; i < 72; ++i) at.push_back(i);
  for (int i = 0; i < 8 * kSlots; ++i) at.push_back(4096 + i);
  for (const std::streamoff offset : at) {
    fs::copy_file(scratch_ / "whole", path(), fs::copy_options::overwrite_existing);
    change_byte(offset);
    const auto file = open();
    EXPECT_EQ(file->saved(), 0u) << "byte " << offset;
    for (int slot = 0; slot < kSlots; ++slot) EXPECT_FALSE(file->holds(slot));
  }
  fs::copy_file(scratch_ / "whole", path(), fs::copy_options::overwrite_existing);
  EXPECT_EQ(open()->saved(), kId);
}

TEST_F(BlockFileTest, ATruncatedFileIsVoidAndMadeWholeAgain) {
  live_and_seal();
  const auto whole = fs::file_size(path());
  for (const auto size : {whole - 1, whole - kBytes, std::uintmax_t{4096}, std::uintmax_t{72},
                          std::uintmax_t{5}, std::uintmax_t{0}, whole + 1}) {
    live_and_seal();
    fs::resize_file(path(), size);
    const auto file = open();
    EXPECT_EQ(file->saved(), 0u) << size;
    EXPECT_EQ(fs::file_size(path()), whole);
    EXPECT_TRUE(file->write(kSlots - 1, block_of(1).data()).ok());
  }
}

TEST_F(BlockFileTest, GarbageIsVoid) {
  std::mt19937 random(7);
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    live_and_seal();
    // Some rounds spare the magic, some the length.
    std::string bytes(round % 3 == 0 ? random() % 20000 : fs::file_size(path()), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (round % 2 == 0 && bytes.size() > 16) {
      std::ifstream(path(), std::ios::binary).read(bytes.data(), 16);
    }
    std::ofstream(path(), std::ios::binary) << bytes;
    const auto file = open();
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(file->saved(), 0u);
    Block got(kBytes);
    ASSERT_TRUE(file->write(3, block_of(round).data()).ok());
    ASSERT_TRUE(file->read(3, got.data()).ok());
    EXPECT_EQ(got, block_of(round));
  }
}

TEST_F(BlockFileTest, BelongsToOneProcess) {
  const auto mine = open();
  const auto theirs = BlockFile::open(path(), layout_, absl::Milliseconds(50));
  EXPECT_EQ(theirs.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(theirs.status().message()), HasSubstr("another process keeps"));
}

TEST_F(BlockFileTest, IsForItsOwnersEyes) {
  const auto file = open();
  EXPECT_EQ(fs::status(path()).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(BlockFileTest, AFullDiskIsFoundAtOnce) {
  layout_.num_blocks = 1 << 30;
  layout_.block_bytes = std::size_t{1} << 24;
  const auto file = BlockFile::open(path(), layout_, absl::ZeroDuration());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("needs 18014407099420672 bytes"));
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("--kv-offload-bytes"));
}

// As a disk that has less than it said: the file system refuses while room is made.
TEST_F(BlockFileTest, ARefusedFileGivesBackWhatItTook) {
  const auto child = [this] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    setrlimit(RLIMIT_FSIZE, &limit);
    layout_.num_blocks = 1000;
    const auto file = BlockFile::open(path(), layout_, absl::ZeroDuration());
    std::fprintf(stderr, "%s; %d bytes are left\n", std::string(file.status().message()).c_str(),
                 static_cast<int>(fs::file_size(path())));
    std::_Exit(file.status().code() == absl::StatusCode::kOutOfRange ? 0 : 1);
  };
  EXPECT_EXIT(child(), testing::ExitedWithCode(0), "needs 10[0-9]+ bytes.*; 0 bytes are left");
}

TEST_F(BlockFileTest, FoldersThatCannotBe) {
  const auto refusal = [this](const std::string& where) {
    const auto file = BlockFile::open(where, layout_, absl::ZeroDuration());
    EXPECT_EQ(file.status().code(), absl::StatusCode::kOutOfRange);
    return std::string(file.status().message());
  };
  EXPECT_THAT(refusal(scratch_ / "none/below/blocks"), HasSubstr("No such file"));
  std::ofstream(scratch_ / "plain") << "x";
  EXPECT_THAT(refusal(scratch_ / "plain/blocks"), HasSubstr("Not a directory"));
  fs::create_symlink(scratch_ / "plain", scratch_ / "link");
  EXPECT_THAT(refusal(scratch_ / "link"), HasSubstr("link"));
  fs::create_directory(scratch_ / "folder");
  EXPECT_THAT(refusal(scratch_ / "folder"), HasSubstr("--kv-offload-path"));
  EXPECT_TRUE(BlockFile::open(scratch_ / "made/blocks", layout_).ok());  // one level is made
}

}  // namespace
}  // namespace quire
