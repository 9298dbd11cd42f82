// Files that are damaged, another's, or in use.
#include "coordinator/journal/journal_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "coordinator/journal/journal_writer.h"
#include "tests/coordinator/journal/journal_fixture.h"
#include "tests/fakes/faulty_disk.h"

namespace quire::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class JournalFileTest : public JournalTest {
 protected:
  // Two requests, three steps.
  void fill() {
    open();
    ASSERT_TRUE(journal_->accept(request(1, record("a"))).ok());
    ASSERT_TRUE(journal_->accept(request(2, record("b"))).ok());
    for (TokenId token : {10, 11, 12}) {
      release({delta(1, 0, {token}), delta(2, 0, {token + 100})});
    }
    journal_.reset();
  }
  void sql(const std::string& text) {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open(options_.path.c_str(), &handle), SQLITE_OK);
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(handle, text.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
    sqlite3_close(handle);
  }
  void expect_refused(const std::string& why) {
    const absl::Status status = Journal::open(options_).status();
    EXPECT_THAT(status.message(), AllOf(HasSubstr(options_.path), HasSubstr(why)));
  }
};

TEST_F(JournalFileTest, ABrokenRequestIsSkippedAndNamed) {
  fill();
  sql("UPDATE requests SET blob = zeroblob(20) WHERE id = 1");
  open();
  EXPECT_THAT(journal_->problems(), ElementsAre(HasSubstr("request 1")));
  ASSERT_EQ(saved_.size(), 1u);
  EXPECT_THAT(saved(2)->past[0].tokens, ElementsAre(110, 111, 112));
  open();
  EXPECT_THAT(journal_->problems(), IsEmpty()) << "the file is clean after the first look";
}

TEST_F(JournalFileTest, ADeathAtAnyByteOfTheFirstStartIsFollowedByAnother) {
  FaultyDisk disk;
  bool lived = false;
  for (int bytes = 0; !lived; bytes += 97) {
    ASSERT_LT(bytes, 1 << 20);
    options_.path = (folder_ / ("first-" + std::to_string(bytes))).string();
    disk.begin_life();
    disk.die_after(bytes);
    {
      const absl::StatusOr<JournalWriter> first = JournalWriter::open(options_);
      lived = first.ok() && !disk.dead();
      disk.die();
    }
    disk.begin_life();
    const absl::Status second = JournalWriter::open(options_).status();
    ASSERT_TRUE(second.ok()) << "after a death at byte " << bytes << ": " << second;
  }
}

// For want of a disk, say: none of the requests has done anything.
TEST_F(JournalFileTest, StartsThatFailAreHeldAgainstNoRequest) {
  open();
  for (const RequestId id : {1, 2, 3}) {
    ASSERT_TRUE(journal_->accept(request(id, record(std::to_string(id)))).ok());
  }
  journal_.reset();
  FaultyDisk disk;
  bool lived = false;
  for (int bytes = 0; !lived; bytes += 1021) {
    ASSERT_LT(bytes, 1 << 20);
    disk.begin_life();
    disk.die_after(bytes);
    lived = JournalWriter::open(options_).ok();
    disk.die();
  }
  disk.begin_life();
  open();
  EXPECT_THAT(journal_->problems(), IsEmpty());
  EXPECT_EQ(saved_.size(), 3u);
  journal_.reset();  // before its disk
}

TEST_F(JournalFileTest, TokensAfterABrokenStepAreComputedAgain) {
  fill();
  sql("UPDATE steps SET sum = sum + 1 WHERE step = 2");
  open();
  EXPECT_THAT(journal_->problems(), ElementsAre(HasSubstr("step 2")));
  EXPECT_THAT(saved(1)->past[0].tokens, ElementsAre(10)) << "without a gap";
  EXPECT_THAT(saved(2)->past[0].tokens, ElementsAre(110));
}

TEST_F(JournalFileTest, AMissingStepIsNoGap) {
  fill();
  sql("DELETE FROM steps WHERE step = 2");
  open();
  EXPECT_THAT(saved(1)->past[0].tokens, ElementsAre(10));
}

TEST_F(JournalFileTest, ABrokenAnswerTakesItsRequestsAlong) {
  fill();
  sql("UPDATE answers SET blob = zeroblob(3)");
  open();
  EXPECT_THAT(saved_, IsEmpty());
  EXPECT_EQ(journal_->problems().size(), 2u);
}

TEST_F(JournalFileTest, FlippedBytesNeverStopTheStart) {
  for (int seed = 0; seed < 40; ++seed) {
    std::filesystem::remove(options_.path);
    std::filesystem::remove(options_.path + "-wal");
    fill();
    {
      std::fstream file(options_.path, std::ios::in | std::ios::out | std::ios::binary);
      const auto size = static_cast<unsigned>(std::filesystem::file_size(options_.path));
      for (unsigned i = 0; i < 20; ++i) {
        // Not the header of 100 bytes: that decides whether the file is ours at all.
        const unsigned at =
            100 + (static_cast<unsigned>(seed) * 7919u + i * 104729u) % (size - 100);
        file.seekp(at);
        file.put(static_cast<char>(seed * 31 + 7));
      }
    }
    open();
    for (const SavedAnswer& answer : saved_) {
      const std::vector<TokenId>& tokens = answer.requests[0].past[0].tokens;
      const TokenId base = answer.requests[0].request.id == 1 ? 10 : 110;
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        EXPECT_EQ(tokens[i], base + static_cast<TokenId>(i)) << "seed " << seed;
      }
    }
    ASSERT_TRUE(journal_->accept(request(9, record("new"))).ok()) << "seed " << seed;
    journal_.reset();
  }
}

TEST_F(JournalFileTest, AFileThatIsCutOffIsReplacedAndStaysBeside) {
  fill();
  std::filesystem::resize_file(options_.path, 4096 * 2 + 100);
  open();
  ASSERT_TRUE(journal_->accept(request(9, record("new"))).ok());
  int beside = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    beside += entry.path().string().find(".damaged-") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(beside, 1);
}

TEST_F(JournalFileTest, GivesRoomBack) {
  open();
  for (RequestId id = 1; id <= 40; ++id) {
    Request large = request(id, record(std::to_string(id)));
    large.prompt.assign(20000, 1);
    ASSERT_TRUE(journal_->accept(large).ok());
    release({delta(id, 0, {}, FinishReason::kCancelled)});
  }
  open();
  journal_.reset();
  EXPECT_LT(std::filesystem::file_size(options_.path), 100u << 10);
}

TEST_F(JournalFileTest, ASecondCoordinatorIsRefused) {
  open();
  expect_refused("in use by another coordinator");
}

TEST_F(JournalFileTest, WhatIsNoJournalIsRefusedAndLeftAlone) {
  sql("CREATE TABLE accounts(id INTEGER)");
  chmod(options_.path.c_str(), 0600);
  expect_refused("database of something else");
  sql("SELECT * FROM accounts");
}

TEST_F(JournalFileTest, AnotherVersionIsRefused) {
  fill();
  sql("PRAGMA user_version = 2; PRAGMA wal_checkpoint(TRUNCATE)");
  const auto content = [this] {
    std::ifstream file(options_.path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string before = content();
  expect_refused("version 2");
  EXPECT_EQ(content(), before);
}

TEST_F(JournalFileTest, IsForNobodyElsesEyes) {
  fill();
  struct stat facts = {};
  ASSERT_EQ(stat(options_.path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
  ASSERT_EQ(chmod(options_.path.c_str(), 0644), 0);
  expect_refused("chmod 600");
}

TEST_F(JournalFileTest, LinksAndFoldersAreRefused) {
  fill();
  const std::string real = options_.path;
  options_.path = (folder_ / "link.sqlite").string();
  ASSERT_EQ(symlink(real.c_str(), options_.path.c_str()), 0);
  expect_refused("cannot be opened");
  options_.path = folder_.string();
  expect_refused("cannot be opened");
}

}  // namespace
}  // namespace quire::test
