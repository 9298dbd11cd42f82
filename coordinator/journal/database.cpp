#include "coordinator/journal/database.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire {
namespace {

absl::StatusCode code_of(int result) {
  switch (result & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

absl::Status error_of(sqlite3* handle) {
  return absl::Status(code_of(sqlite3_extended_errcode(handle)),
                      absl::StrCat("SQLite says: ", sqlite3_errmsg(handle)));
}

}  // namespace

Statement& Statement::bind(int place, std::int64_t value) {
  sqlite3_bind_int64(statement_.get(), place, value);
  return *this;
}

Statement& Statement::bind(int place, absl::string_view bytes) {
  sqlite3_bind_blob64(statement_.get(), place, bytes.data() != nullptr ? bytes.data() : "",
                      bytes.size(), SQLITE_STATIC);
  return *this;
}

absl::Status Statement::fail() const {
  absl::Status status = error_of(sqlite3_db_handle(statement_.get()));
  sqlite3_reset(statement_.get());
  return status;
}

absl::StatusOr<bool> Statement::next() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result != SQLITE_DONE) return fail();
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  return false;
}

absl::Status Statement::run() {
  while (true) {
    QUIRE_ASSIGN_OR_RETURN(const bool more, next());
    if (!more) return absl::OkStatus();
  }
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

absl::string_view Statement::bytes(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return {data != nullptr ? data : "", data != nullptr ? static_cast<std::size_t>(size) : 0};
}

absl::StatusOr<Database> Database::open(const std::string& path) {
  Database database;
  sqlite3* handle = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, nullptr);
  database.handle_.reset(handle);
  if (result != SQLITE_OK) return error_of(handle);
  return database;
}

absl::Status Database::run(const char* sql) {
  if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK) {
    return absl::OkStatus();
  }
  return error_of(handle_.get());
}

absl::StatusOr<Statement> Database::prepare(const char* sql) {
  sqlite3_stmt* made = nullptr;
  if (sqlite3_prepare_v3(handle_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &made, nullptr) !=
      SQLITE_OK) {
    return error_of(handle_.get());
  }
  Statement statement;
  statement.statement_.reset(made);
  return statement;
}

absl::StatusOr<std::int64_t> Database::integer(const char* sql) {
  QUIRE_ASSIGN_OR_RETURN(Statement statement, prepare(sql));
  QUIRE_ASSIGN_OR_RETURN(const bool found, statement.next());
  if (!found) return absl::NotFoundError("There is no such row.");
  return statement.integer(0);
}

void Database::checkpoint() {
  sqlite3_wal_checkpoint_v2(handle_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
}

}  // namespace quire
