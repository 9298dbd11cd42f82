// What is removed of killed groups, and what must stay.
#include "deploy/quire/sweep.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

class SweepTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / absl::StrCat("sweep.", getpid());
    fs::create_directories(folder_ / "shm");
    fs::create_directories(folder_ / "tmp");
  }
  void TearDown() override { fs::remove_all(folder_); }

  SweepPlaces places() { return {(folder_ / "shm").string(), (folder_ / "tmp").string()}; }
  // A file of one page, last changed a minute ago unless it is new.
  fs::path segment(const std::string& name, bool is_new = false) {
    const fs::path path = folder_ / "shm" / name;
    std::ofstream(path) << std::string(4096, 'x');
    if (is_new) return path;
    const timespec times[2] = {{0, UTIME_OMIT}, {time(nullptr) - 60, 0}};
    EXPECT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    return path;
  }
  fs::path session(int pid) {
    const fs::path path = folder_ / "tmp" / "ompi.host.0" / absl::StrCat("pid.", pid);
    fs::create_directories(path / "0");
    std::ofstream(path / "contact.txt") << "x";
    return path;
  }

  fs::path folder_;
};

TEST_F(SweepTest, OnlyWhatNoProcessMapsGoes) {
  const fs::path stale = segment("quire.quire-dead-1.0");
  const fs::path vader = segment("vader_segment.host.0.1.0");
  const fs::path strange = segment("somebody-elses");
  const fs::path starting = segment("quire.quire-young-1.0", /*is_new=*/true);
  const fs::path used = segment("quire.quire-lives-1.0");
  const int fd = open(used.c_str(), O_RDWR);
  void* memory = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EQ(sweep("", places()), 2);
  EXPECT_FALSE(fs::exists(stale));
  EXPECT_FALSE(fs::exists(vader));
  EXPECT_TRUE(fs::exists(strange));
  EXPECT_TRUE(fs::exists(starting));
  EXPECT_TRUE(fs::exists(used));
  munmap(memory, 4096);
  EXPECT_EQ(sweep("", places()), 1);
  EXPECT_FALSE(fs::exists(used));
}

TEST_F(SweepTest, SegmentsOfAGroupThatIsKnownToBeDeadGoAtOnce) {
  const fs::path dead = segment("quire.quire-a1b2-3.0", /*is_new=*/true);
  const fs::path other = segment("quire.quire-c3d4-3.0", /*is_new=*/true);
  EXPECT_EQ(sweep("a1b2", places()), 1);
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(other));
}

TEST_F(SweepTest, SessionsGoWithTheirLauncher) {
  const fs::path dead = session(0x3fffffff);  // above any pid
  const fs::path reused = session(getpid());  // a process, but no launcher
  const fs::path strange = folder_ / "tmp" / "ompi.host.0" / "notes";
  fs::create_directories(strange);
  EXPECT_EQ(sweep("", places()), 2);
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_FALSE(fs::exists(reused));
  EXPECT_TRUE(fs::exists(strange));
}

// In a container the dead may stay for long, with their names.
TEST_F(SweepTest, ALauncherThatNobodyReapsIsDead) {
  const pid_t launcher = fork();
  if (launcher == 0) {
    prctl(PR_SET_NAME, "mpirun");
    _exit(0);
  }
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(launcher), &info, WEXITED | WNOWAIT), 0);
  const fs::path dead = session(launcher);
  EXPECT_EQ(sweep("", places()), 1);
  EXPECT_FALSE(fs::exists(dead));
  waitpid(launcher, nullptr, 0);
}

TEST_F(SweepTest, TheFolderOfSessionsIsOnlyOurs) {
  const fs::path sessions = folder_ / "tmp" / absl::StrCat("ompi.here.", geteuid());
  for (int i = 0; i < 2; ++i) make_sessions_folder("here.example.org", places());
  struct stat info {};
  ASSERT_EQ(stat(sessions.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(SweepTest, FoldersThatAreNotThereAreNoError) {
  EXPECT_EQ(sweep("", {"/nowhere/shm", "/nowhere/tmp"}), 0);
}

}  // namespace
}  // namespace quire
