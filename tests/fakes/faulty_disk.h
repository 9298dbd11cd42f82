// A disk under SQLite that does what disks and dying processes do. It is SQLite's default VFS while
// it lives, over the real one and real files: so what a later life reads is what truly was written.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <optional>
#include <string>

namespace quire::test {

class FaultyDisk {
 public:
  FaultyDisk();
  ~FaultyDisk();
  FaultyDisk(const FaultyDisk&) = delete;
  FaultyDisk& operator=(const FaultyDisk&) = delete;

  // The process dies when it has written so many more bytes: the write that goes beyond is torn,
  // and nothing that it does afterwards reaches a file.
  void die_after(std::int64_t bytes) { bytes_left_ = bytes; }
  void die() { dead_ = true; }
  bool dead() const { return dead_; }
  // Another process: nothing is in store for it. Errors of the disk stay.
  void begin_life();
  // Until it is ok again every write fails with this code (SQLITE_FULL, SQLITE_IOERR).
  void fail_with(int code) { failure_ = code; }
  bool failing() const { return failure_ != SQLITE_OK; }

  // What the machine loses or spoils while no process has the journal open. `random`: any number.
  // Each is false where there was nothing to spoil.
  static bool cut_log(const std::string& path, std::uint64_t random);       // its end is gone
  static bool flip_in_file(const std::string& path, std::uint64_t random);  // a bit anywhere
  // A byte of a blob in one row. Of which table, and of which answer; nothing: of none.
  struct Flipped {
    std::string table;   // requests, steps or answers
    std::string answer;  // empty for steps
  };
  std::optional<Flipped> flip_in_row(const std::string& path, std::uint64_t random) const;

 private:
  friend struct DiskShim;
  // How many of `bytes` are still written, and what the caller hears.
  int admit(int bytes, int* admitted);

  sqlite3_vfs* const real_;
  sqlite3_vfs vfs_;
  std::int64_t bytes_left_ = -1;  // below 0: no end
  bool dead_ = false;
  int failure_ = SQLITE_OK;
};

}  // namespace quire::test
