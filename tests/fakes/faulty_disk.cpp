// The VFS passes everything on but what changes files.
#include "tests/fakes/faulty_disk.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire::test {

struct DiskShim {
  sqlite3_file base;
  FaultyDisk* disk;
  sqlite3_file* real;  // in the same allocation, behind this

  static DiskShim* of(sqlite3_file* file) { return reinterpret_cast<DiskShim*>(file); }
  static FaultyDisk* of(sqlite3_vfs* vfs) { return static_cast<FaultyDisk*>(vfs->pAppData); }

  static int close(sqlite3_file* file) { return of(file)->real->pMethods->xClose(of(file)->real); }
  static int read(sqlite3_file* file, void* to, int bytes, sqlite3_int64 from) {
    return of(file)->real->pMethods->xRead(of(file)->real, to, bytes, from);
  }
  static int write(sqlite3_file* file, const void* from, int bytes, sqlite3_int64 to) {
    int admitted = 0;
    const int heard = of(file)->disk->admit(bytes, &admitted);
    if (admitted > 0) {
      const int code = of(file)->real->pMethods->xWrite(of(file)->real, from, admitted, to);
      if (code != SQLITE_OK) return code;
    }
    return heard;
  }
  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    int admitted = 0;
    const int heard = of(file)->disk->admit(0, &admitted);
    if (heard != SQLITE_OK) return heard;
    return of(file)->real->pMethods->xTruncate(of(file)->real, size);
  }
  static int sync(sqlite3_file* file, int) { return of(file)->disk->dead() ? SQLITE_IOERR : 0; }
  static int size(sqlite3_file* file, sqlite3_int64* size) {
    return of(file)->real->pMethods->xFileSize(of(file)->real, size);
  }
  static int lock(sqlite3_file* file, int kind) {
    return of(file)->real->pMethods->xLock(of(file)->real, kind);
  }
  static int unlock(sqlite3_file* file, int kind) {
    return of(file)->real->pMethods->xUnlock(of(file)->real, kind);
  }
  static int check_lock(sqlite3_file* file, int* out) {
    return of(file)->real->pMethods->xCheckReservedLock(of(file)->real, out);
  }
  static int control(sqlite3_file* file, int what, void* with) {
    return of(file)->real->pMethods->xFileControl(of(file)->real, what, with);
  }
  static int sector(sqlite3_file* file) {
    return of(file)->real->pMethods->xSectorSize(of(file)->real);
  }
  static int traits(sqlite3_file* file) {
    return of(file)->real->pMethods->xDeviceCharacteristics(of(file)->real);
  }

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
    FaultyDisk* disk = of(vfs);
    DiskShim* shim = of(file);
    *shim = {{nullptr}, disk, reinterpret_cast<sqlite3_file*>(shim + 1)};
    if (disk->dead()) return SQLITE_CANTOPEN;
    const int code = disk->real_->xOpen(disk->real_, name, shim->real, flags, out);
    // Version 1: no shared memory, which the journal's exclusive lock makes needless.
    static const sqlite3_io_methods methods = {
        1,       close,  read,   write,   truncate, sync,    size,    lock,    unlock, check_lock,
        control, sector, traits, nullptr, nullptr,  nullptr, nullptr, nullptr, nullptr};
    if (code == SQLITE_OK) shim->base.pMethods = &methods;
    return code;
  }
  static int remove(sqlite3_vfs* vfs, const char* name, int sync) {
    if (of(vfs)->dead()) return SQLITE_IOERR_DELETE;
    return of(vfs)->real_->xDelete(of(vfs)->real_, name, sync);
  }
};

FaultyDisk::FaultyDisk() : real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
  QUIRE_CHECK(std::string(real_->zName) != "faulty");  // one at a time
  vfs_.pNext = nullptr;
  vfs_.zName = "faulty";
  vfs_.pAppData = this;
  vfs_.szOsFile = static_cast<int>(sizeof(DiskShim)) + real_->szOsFile;
  vfs_.xOpen = DiskShim::open;
  vfs_.xDelete = DiskShim::remove;
  QUIRE_CHECK_EQ(sqlite3_vfs_register(&vfs_, 1), SQLITE_OK);
}

FaultyDisk::~FaultyDisk() {
  sqlite3_vfs_register(real_, 1);
  sqlite3_vfs_unregister(&vfs_);
}

void FaultyDisk::begin_life() {
  dead_ = false;
  bytes_left_ = -1;
}

int FaultyDisk::admit(int bytes, int* admitted) {
  *admitted = 0;
  if (dead_) return SQLITE_IOERR_WRITE;
  if (failure_ != SQLITE_OK) return failure_;
  *admitted = bytes;
  if (bytes_left_ >= 0) {
    *admitted = static_cast<int>(std::min<std::int64_t>(bytes, bytes_left_));
    bytes_left_ -= *admitted;
    dead_ = *admitted < bytes;
  }
  return dead_ ? SQLITE_IOERR_WRITE : SQLITE_OK;
}

namespace {

namespace fs = std::filesystem;

std::uint64_t size_of(const std::string& path) {
  std::error_code absent;
  const auto size = fs::file_size(path, absent);
  return absent ? 0 : size;
}

bool flip_at(const std::string& path, std::uint64_t place, unsigned bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(place));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(place));
  file.put(static_cast<char>(static_cast<unsigned>(byte) ^ (1u << (bit % 8))));
  return file.good();
}

}  // namespace

bool FaultyDisk::cut_log(const std::string& path, std::uint64_t random) {
  const std::uint64_t size = size_of(path + "-wal");
  if (size == 0) return false;
  fs::resize_file(path + "-wal", random % size);
  return true;
}

bool FaultyDisk::flip_in_file(const std::string& path, std::uint64_t random) {
  const std::uint64_t file = size_of(path), all = file + size_of(path + "-wal");
  if (all == 0) return false;
  const std::uint64_t place = random / 8 % all;
  if (place < file) return flip_at(path, place, static_cast<unsigned>(random % 8));
  return flip_at(path + "-wal", place - file, static_cast<unsigned>(random % 8));
}

std::optional<FaultyDisk::Flipped> FaultyDisk::flip_in_row(const std::string& path,
                                                           std::uint64_t random) const {
  static constexpr struct {
    const char *table, *key, *answer;
  } kTables[] = {
      {"requests", "id", "answer"}, {"steps", "step", "x''"}, {"answers", "name", "name"}};
  const auto& [table, key, answer] = kTables[random % 3];
  const std::string sql =
      absl::StrCat("UPDATE ", table, " SET blob = substr(blob, 1, length(blob) / 2) || X'5a' || ",
                   "substr(blob, length(blob) / 2 + 2) WHERE length(blob) > 0 AND ", key,
                   " IN (SELECT ", key, " FROM ", table, " ORDER BY ", key, " LIMIT 1 OFFSET ",
                   random / 3 % 8, ") RETURNING ", answer);
  std::optional<Flipped> flipped;
  sqlite3* handle = nullptr;
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE, real_->zName) == SQLITE_OK &&
      sqlite3_exec(handle, "PRAGMA locking_mode=EXCLUSIVE", nullptr, nullptr, nullptr) ==
          SQLITE_OK &&
      sqlite3_prepare_v2(handle, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW) {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement, 0));
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement, 0));
    flipped = Flipped{table, bytes == nullptr ? "" : std::string(bytes, size)};
    sqlite3_step(statement);
  }
  sqlite3_finalize(statement);
  sqlite3_close_v2(handle);
  return flipped;
}

}  // namespace quire::test
