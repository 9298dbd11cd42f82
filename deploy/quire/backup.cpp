// `quire backup JOURNAL COPY`: a journal as one file of its own, also while a coordinator writes to
// it. The coordinator holds SQLite's lock for as long as it lives, so SQLite cannot read beside it:
// the two files are copied as they are, which is a whole database as long as the write-ahead log
// did not begin anew meanwhile. The database changes only where the log is folded into it, and the
// log, copied after it, has every page of that; a log that begins anew has new salts in its header.
// The copy is then opened, checked and folded by SQLite.
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "deploy/quire/commands.h"

namespace quire {
namespace {

constexpr char kUsage[] =
    "usage: quire backup JOURNAL COPY\n\n"
    "Copies the journal of a server, which may be running, to COPY, a new file that only you may\n"
    "read. A server that is started with --journal COPY goes on with what was unfinished.\n";
constexpr int kTries = 20;  // the log begins anew every few megabytes
constexpr std::size_t kLogHeader = 32;

absl::Status failed(const std::string& what, const std::string& path) {
  const std::string why = std::strerror(errno);
  if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(what, " ", path, ": ", why));
  return absl::UnavailableError(absl::StrCat(what, " ", path, ": ", why));
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  const int fd_;
};

// Empty where there is no log, or none that was begun.
absl::StatusOr<std::string> log_header(const std::string& log) {
  const File file(open(log.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.ok())
    return errno == ENOENT ? absl::StatusOr<std::string>("") : failed("cannot read", log);
  std::array<char, kLogHeader> bytes{};
  const ssize_t n = pread(file.fd(), bytes.data(), bytes.size(), 0);
  if (n < 0) return failed("cannot read", log);
  return std::string(bytes.data(), static_cast<std::size_t>(n));
}

absl::Status copy_file(const std::string& from, const std::string& to) {
  const File in(open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!in.ok()) return failed("cannot read", from);
  const File out(open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!out.ok()) return failed("cannot write", to);
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t n = read(in.fd(), buffer.data(), buffer.size());
    if (n < 0) return failed("cannot read", from);
    if (n == 0) break;
    for (ssize_t done = 0; done < n;) {
      const ssize_t written =
          write(out.fd(), buffer.data() + done, static_cast<std::size_t>(n - done));
      if (written < 0) return failed("cannot write", to);
      done += written;
    }
  }
  return fsync(out.fd()) == 0 ? absl::OkStatus() : failed("cannot write", to);
}

// False if the log began anew meanwhile: the copy is of two different times.
absl::StatusOr<bool> copy_once(const std::string& journal, const std::string& to) {
  QUIRE_ASSIGN_OR_RETURN(const std::string before, log_header(journal + "-wal"));
  QUIRE_RETURN_IF_ERROR(copy_file(journal, to));
  const absl::Status log = copy_file(journal + "-wal", to + "-wal");
  if (absl::IsNotFound(log)) {
    unlink((to + "-wal").c_str());
  } else if (!log.ok()) {
    return log;
  }
  QUIRE_ASSIGN_OR_RETURN(const std::string after, log_header(journal + "-wal"));
  return before == after;
}

struct CloseDatabase {
  void operator()(sqlite3* handle) const { sqlite3_close(handle); }
};
struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};

// The first column of the first row.
absl::StatusOr<std::string> ask(sqlite3* handle, const char* sql) {
  sqlite3_stmt* raw = nullptr;
  const int prepared = sqlite3_prepare_v2(handle, sql, -1, &raw, nullptr);
  const std::unique_ptr<sqlite3_stmt, Finalize> statement(raw);
  if (prepared != SQLITE_OK || sqlite3_step(raw) != SQLITE_ROW) {
    return absl::DataLossError(sqlite3_errmsg(handle));
  }
  const unsigned char* text = sqlite3_column_text(raw, 0);
  return text == nullptr ? "" : std::string(reinterpret_cast<const char*>(text));
}

// Folds the log into the file; how many requests it holds.
absl::StatusOr<std::string> check_and_fold(const std::string& path) {
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
  const std::unique_ptr<sqlite3, CloseDatabase> handle(raw);
  if (opened != SQLITE_OK) return absl::UnavailableError(sqlite3_errmsg(raw));
  QUIRE_ASSIGN_OR_RETURN(const std::string verdict, ask(raw, "PRAGMA quick_check"));
  if (verdict != "ok") return absl::DataLossError(verdict);
  QUIRE_ASSIGN_OR_RETURN(std::string requests, ask(raw, "SELECT COUNT(*) FROM requests"));
  QUIRE_RETURN_IF_ERROR(ask(raw, "PRAGMA wal_checkpoint(TRUNCATE)").status());
  return requests;
}

absl::StatusOr<std::string> back_up(const std::string& journal, const std::string& copy) {
  struct stat info {};
  if (lstat(copy.c_str(), &info) == 0) {
    return absl::AlreadyExistsError(absl::StrCat(copy, " exists; name a new file"));
  }
  const std::string part = copy + ".part";
  const auto remove_part = absl::MakeCleanup([&part] {
    for (const char* suffix : {"", "-wal", "-shm"}) unlink((part + suffix).c_str());
  });
  bool whole = false;
  for (int i = 0; i < kTries && !whole; ++i) {
    QUIRE_ASSIGN_OR_RETURN(whole, copy_once(journal, part));
  }
  if (!whole) {
    return absl::UnavailableError(
        absl::StrCat(journal, " changed faster than it could be copied; try again"));
  }
  absl::StatusOr<std::string> requests = check_and_fold(part);
  if (!requests.ok()) {
    return absl::Status(
        requests.status().code(),
        absl::StrCat(journal, " is no whole journal: ", requests.status().message()));
  }
  if (rename(part.c_str(), copy.c_str()) != 0) return failed("cannot make", copy);
  return requests;
}

int exit_code_of(const absl::Status& status) {
  if (absl::IsNotFound(status)) return 66;
  if (absl::IsDataLoss(status)) return 65;
  return absl::IsAlreadyExists(status) ? 64 : 74;
}

}  // namespace

int backup_command(const std::vector<std::string>& arguments) {
  if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (arguments.size() != 2) {
    return fail("backup", absl::StrCat("a journal and the name of its copy are needed\n", kUsage));
  }
  const absl::StatusOr<std::string> requests = back_up(arguments[0], arguments[1]);
  if (!requests.ok()) {
    return fail("backup", std::string(requests.status().message()),
                exit_code_of(requests.status()));
  }
  std::printf("%s: %s requests\n", arguments[1].c_str(), requests->c_str());
  return 0;
}

}  // namespace quire
