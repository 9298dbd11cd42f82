// SQLite, as little of it as the journal needs: one connection, prepared statements, errors as
// Status. One thread at a time uses a Database.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

class Database;

// One prepared statement, used again and again: bind, then run() or next() until it is false.
class Statement {
 public:
  Statement() = default;
  Statement& bind(int place, std::int64_t value);
  Statement& bind(int place, absl::string_view bytes);  // kept alive by the caller until it has run
  absl::Status run();                                   // to its end; ready to be bound again
  // False at the end (ready to be bound again). An error ends it, too.
  absl::StatusOr<bool> next();
  std::int64_t integer(int column) const;
  absl::string_view bytes(int column) const;  // until the next call of next()

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  absl::Status fail() const;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

class Database {
 public:
  // Opens a file that exists.
  static absl::StatusOr<Database> open(const std::string& path);

  // DataLoss: the file is damaged or none of SQLite's; ResourceExhausted: no space; Unavailable:
  // another process has it, or it cannot be read or written.
  absl::Status run(const char* sql);
  absl::StatusOr<Statement> prepare(const char* sql);
  absl::StatusOr<std::int64_t> integer(const char* sql);  // of its first row
  void checkpoint();  // moves the write-ahead log into the file, as far as it can
  bool in_transaction() const { return sqlite3_get_autocommit(handle_.get()) == 0; }

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
};

}  // namespace quire
