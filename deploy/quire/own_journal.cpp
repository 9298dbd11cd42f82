#include "deploy/quire/own_journal.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

void remove_journal(const std::string& path) {
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code ignored;
    fs::remove(path + suffix, ignored);
  }
}

// "pid-1234.sqlite" of a process that is no more.
bool is_left(const std::string& name) {
  absl::string_view rest = name;
  pid_t pid = 0;
  if (!absl::ConsumePrefix(&rest, "pid-") || !absl::ConsumeSuffix(&rest, ".sqlite") ||
      !absl::SimpleAtoi(rest, &pid) || pid <= 0) {
    return false;
  }
  return kill(pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

OwnJournal::OwnJournal(EngineConfig* config) {
  if (config->journal != "auto" || config->port != 0) return;
  const std::string folder = cache_folder() + "/journal";
  std::error_code absent;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, absent)) {
    if (is_left(entry.path().filename())) remove_journal(entry.path());
  }
  path_ = absl::StrCat(folder, "/pid-", getpid(), ".sqlite");
  remove_journal(path_);  // of an earlier process with our number
  config->journal = path_;
}

OwnJournal::~OwnJournal() {
  if (!path_.empty()) remove_journal(path_);
}

}  // namespace quire
