#include "deploy/quire/sweep.h"

#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "deploy/quire/process.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

// A segment is mapped within milliseconds after its name appears.
constexpr std::time_t kSettledSeconds = 10;

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    paths.push_back(entry->path());
  }
  return paths;
}

bool is_ours(const fs::path& path, struct stat* info) {
  return lstat(path.c_str(), info) == 0 && info->st_uid == geteuid();
}

// Names below `folder` that some process maps. Processes of other users cannot be read, but have no
// part in files of ours.
std::set<std::string> mapped_below(const std::string& folder) {
  std::set<std::string> mapped;
  const std::string prefix = absl::StrCat(folder, "/");
  for (const fs::path& process : entries_of("/proc")) {
    int pid = 0;
    if (!absl::SimpleAtoi(process.filename().string(), &pid)) continue;
    std::ifstream maps(process / "maps");
    for (std::string line; std::getline(maps, line);) {
      const std::size_t at = line.find(prefix);
      if (at != std::string::npos) mapped.insert(line.substr(at));
    }
  }
  return mapped;
}

int sweep_shared_memory(const std::string& folder, const std::string& dead_instance) {
  int removed = 0;
  std::vector<fs::path> left;
  struct stat info {};
  for (const fs::path& path : entries_of(folder)) {
    const std::string name = path.filename().string();
    const bool segment = absl::StartsWith(name, "quire.");
    if ((!segment && !absl::StartsWith(name, "vader_segment.")) || !is_ours(path, &info)) continue;
    const bool dead = segment && !dead_instance.empty() && absl::StrContains(name, dead_instance);
    if (dead) {
      removed += unlink(path.c_str()) == 0 ? 1 : 0;
    } else if (std::time(nullptr) - info.st_mtime > kSettledSeconds) {
      left.push_back(path);
    }
  }
  if (left.empty()) return removed;
  const std::set<std::string> mapped = mapped_below(folder);
  for (const fs::path& path : left) {
    if (mapped.contains(path.string())) continue;
    removed += unlink(path.c_str()) == 0 ? 1 : 0;
  }
  return removed;
}

// A number that was given to another program since counts as dead, and so does one that nobody
// reaps.
bool is_launcher(int pid) {
  if (has_ended(pid)) return false;
  std::ifstream comm(absl::StrCat("/proc/", pid, "/comm"));
  std::string name;
  std::getline(comm, name);
  return absl::StartsWith(name, "mpirun") || absl::StartsWith(name, "mpiexec") ||
         name == "orterun" || name == "orted";
}

// Open MPI: FOLDER/ompi.HOST.UID/pid.N, where N is mpirun's (or a daemon's) process.
int sweep_sessions(const fs::path& folder) {
  int removed = 0;
  struct stat info {};
  for (const fs::path& sessions : entries_of(folder)) {
    if (!absl::StartsWith(sessions.filename().string(), "ompi.") || !is_ours(sessions, &info)) {
      continue;
    }
    for (const fs::path& session : entries_of(sessions)) {
      const std::string name = session.filename().string();
      absl::string_view number = name;
      int pid = 0;
      if (!absl::ConsumePrefix(&number, "pid.") || !absl::SimpleAtoi(number, &pid)) continue;
      if (is_launcher(pid) || !is_ours(session, &info)) continue;
      std::error_code error;
      fs::remove_all(session, error);
      removed += error ? 0 : 1;
    }
  }
  return removed;
}

fs::path temporary_of(const SweepPlaces& places) {
  std::error_code error;
  return places.temporary.empty() ? fs::temp_directory_path(error) : fs::path(places.temporary);
}

}  // namespace

int sweep(const std::string& dead_instance, const SweepPlaces& places) {
  return sweep_shared_memory(places.shared_memory, dead_instance) +
         sweep_sessions(temporary_of(places));
}

void make_sessions_folder(const std::string& host, const SweepPlaces& places) {
  const std::string short_name = host.substr(0, host.find('.'));
  const fs::path folder = temporary_of(places) / absl::StrCat("ompi.", short_name, ".", geteuid());
  mkdir(folder.c_str(), 0700);  // where it fails mpirun says why
}

}  // namespace quire
