#include "deploy/quire/own_journal.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace quire::test {
namespace {

namespace fs = std::filesystem;

class OwnJournalTest : public testing::Test {
 protected:
  OwnJournalTest() {
    std::string folder = (fs::temp_directory_path() / "quire-own-XXXXXX").string();
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    cache_ = folder;
    fs::create_directory(cache_ / "journal");
    setenv("QUIRE_CACHE", folder.c_str(), 1);
  }
  ~OwnJournalTest() override {
    unsetenv("QUIRE_CACHE");
    fs::remove_all(cache_);
  }
  fs::path make(const std::string& name) {
    const fs::path path = cache_ / "journal" / name;
    std::ofstream(path) << "x";
    return path;
  }
  fs::path cache_;
};

TEST_F(OwnJournalTest, IsOfThisProcessAndGoesWithIt) {
  EngineConfig config;
  config.port = 0;
  fs::path path;
  {
    const OwnJournal own(&config);
    path = config.journal;
    EXPECT_EQ(path.filename(), "pid-" + std::to_string(getpid()) + ".sqlite");
    std::ofstream(path) << "x";
    std::ofstream(path.string() + "-wal") << "x";
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(fs::exists(path.string() + "-wal"));
}

TEST_F(OwnJournalTest, LeavesAloneWhatHasAPortOrAName) {
  EngineConfig config;
  config.port = 8000;
  const OwnJournal with_port(&config);
  EXPECT_EQ(config.journal, "auto");
  config.port = 0;
  config.journal = "none";
  const OwnJournal with_name(&config);
  EXPECT_EQ(config.journal, "none");
}

TEST_F(OwnJournalTest, RemovesThoseOfTheDeadOnly) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  const fs::path dead = make("pid-" + std::to_string(child) + ".sqlite");
  const fs::path alive = make("pid-" + std::to_string(getppid()) + ".sqlite");
  const fs::path other = make("port-8000.sqlite");
  EngineConfig config;
  config.port = 0;
  const OwnJournal own(&config);
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(alive));
  EXPECT_TRUE(fs::exists(other));
}

}  // namespace
}  // namespace quire::test
