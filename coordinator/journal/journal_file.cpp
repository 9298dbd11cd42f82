#include "coordinator/journal/journal_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/hash.h"
#include "common/status.h"
#include "coordinator/journal/records.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kApplication = 0x51756a31;  // in SQLite's header: a journal of ours
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kPageBytes = 4096;  // SQLite's default
constexpr std::int64_t kMaxIdleLives = 5;  // as many as the supervisor tries in a row
constexpr std::uint64_t kSumSeed = 0x6a6f75726e616c;

constexpr const char* kTables =
    "CREATE TABLE IF NOT EXISTS answers(name BLOB PRIMARY KEY, blob BLOB NOT NULL, sum INTEGER NOT "
    "NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS requests(id INTEGER PRIMARY KEY, answer BLOB NOT NULL, blob BLOB "
    "NOT NULL, sum INTEGER NOT NULL, past BLOB, past_sum INTEGER, ended INTEGER, lives INTEGER NOT "
    "NULL DEFAULT 0);"
    "CREATE INDEX IF NOT EXISTS requests_of_answer ON requests(answer);"
    "CREATE TABLE IF NOT EXISTS steps(step INTEGER PRIMARY KEY, blob BLOB NOT NULL, sum INTEGER "
    "NOT NULL);"
    "CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value INTEGER NOT NULL);";

std::int64_t sum_of(absl::string_view bytes) {
  return static_cast<std::int64_t>(hash64(kSumSeed, bytes));
}

absl::Status refuse(const std::string& path, absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("The journal ", path, " ", why,
                   "; name another by --journal, or do without: --journal none."));
}

// Prompts lie in it: for nobody else's eyes, and no link leads elsewhere.
absl::Status make_or_check(const std::string& path) {
  std::error_code ignored;
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty() && fs::create_directories(folder, ignored)) {
    fs::permissions(folder, fs::perms::owner_all, ignored);
  }
  const int file =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (file < 0) return refuse(path, absl::StrCat("cannot be opened (", std::strerror(errno), ")"));
  struct stat facts = {};
  const bool known = ::fstat(file, &facts) == 0;
  ::close(file);
  if (!known || !S_ISREG(facts.st_mode)) return refuse(path, "is not a regular file");
  if (facts.st_uid != ::geteuid()) return refuse(path, "belongs to another user");
  if ((facts.st_mode & 077) != 0) {
    return refuse(path, "can be read or written by others (chmod 600 mends that)");
  }
  return absl::OkStatus();
}

// 0: there is none.
std::int64_t bytes_of(const std::string& path) {
  std::error_code absent;
  const auto size = fs::file_size(path, absent);
  return absent ? 0 : static_cast<std::int64_t>(size);
}

bool has_ended(const SavedAnswer& answer) {
  return std::all_of(answer.requests.begin(), answer.requests.end(),
                     [](const SavedRequest& saved) { return saved.ended(); });
}

}  // namespace

struct JournalFile::Row {
  std::string answer;
  Request request;
  std::vector<OutputDelta> past;
  bool ended = false;
  bool advanced = false;   // in the last life
  std::int64_t lives = 0;  // that it has been in without advancing
};

absl::StatusOr<JournalFile> JournalFile::open(const JournalOptions& options) {
  JournalFile file(options);
  QUIRE_RETURN_IF_ERROR(make_or_check(options.path));
  absl::Status connected = file.connect();
  if (absl::IsDataLoss(connected)) {
    QUIRE_RETURN_IF_ERROR(file.replace_file());
    connected = file.connect();
  }
  QUIRE_RETURN_IF_ERROR(connected);
  return file;
}

// The lock is taken here and held: a second coordinator is refused.
absl::Status JournalFile::connect() {
  const auto named = [this](const absl::Status& status) {
    if (status.ok() || absl::IsDataLoss(status)) return status;
    return refuse(options_.path, absl::StrCat("cannot be used (", status.message(), ")"));
  };
  absl::StatusOr<Database> opened = Database::open(options_.path);
  QUIRE_RETURN_IF_ERROR(named(opened.status()));
  database_ = *std::move(opened);
  QUIRE_RETURN_IF_ERROR(named(database_.run("PRAGMA locking_mode=EXCLUSIVE")));
  // Vacuum is chosen before the first page is made, or never; nothing else is changed before it is
  // known whose file this is.
  const bool is_empty = bytes_of(options_.path) == 0;
  const absl::Status locked =
      database_.run(is_empty ? "PRAGMA auto_vacuum=INCREMENTAL; BEGIN EXCLUSIVE; COMMIT;"
                             : "BEGIN EXCLUSIVE; COMMIT;");
  if (!locked.ok() && !absl::IsDataLoss(locked)) {
    return refuse(options_.path, absl::StrCat("is in use by another coordinator, or cannot be "
                                              "written (",
                                              locked.message(), ")"));
  }
  QUIRE_RETURN_IF_ERROR(locked);
  QUIRE_ASSIGN_OR_RETURN(const std::int64_t application,
                         database_.integer("PRAGMA application_id"));
  QUIRE_ASSIGN_OR_RETURN(const std::int64_t version, database_.integer("PRAGMA user_version"));
  QUIRE_ASSIGN_OR_RETURN(const std::int64_t tables,
                         database_.integer("SELECT COUNT(*) FROM sqlite_schema"));
  const bool is_new = application == 0 && version == 0 && tables == 0;
  if (!is_new && application != kApplication) {
    return refuse(options_.path, "is a database of something else");
  }
  if (!is_new && version != kVersion) {
    return refuse(options_.path,
                  absl::StrCat("is of version ", version,
                               ", which this program does not know (it writes ", kVersion, ")"));
  }
  // Whose it is and what is in it is written at once, or a death in between leaves what nobody
  // knows.
  const std::string settings = absl::StrCat(
      "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; "
      "PRAGMA journal_size_limit=4194304; PRAGMA max_page_count=",
      options_.max_bytes / kPageBytes, "; PRAGMA synchronous=", options_.sync,
      "; BEGIN; PRAGMA application_id=", kApplication, "; PRAGMA user_version=", kVersion, ";",
      kTables, "COMMIT;");
  QUIRE_RETURN_IF_ERROR(named(database_.run(settings.c_str())));
  return named(prepare_all());
}

absl::Status JournalFile::prepare_all() {
  const std::pair<Statement*, const char*> all[] = {
      {&statements_.begin, "BEGIN IMMEDIATE"},
      {&statements_.commit, "COMMIT"},
      {&statements_.rollback, "ROLLBACK"},
      {&statements_.add_answer, "INSERT OR REPLACE INTO answers(name, blob, sum) VALUES(?, ?, ?)"},
      {&statements_.add_request, "INSERT INTO requests(id, answer, blob, sum) VALUES(?, ?, ?, ?)"},
      {&statements_.add_step, "INSERT INTO steps(step, blob, sum) VALUES(?, ?, ?)"},
      {&statements_.end, "UPDATE requests SET past=?, past_sum=?, ended=? WHERE id=?"},
      {&statements_.go_on, "UPDATE requests SET past=?, past_sum=?, lives=? WHERE id=?"},
      {&statements_.remove, "DELETE FROM requests WHERE id=?"},
      {&statements_.remove_answer,
       "DELETE FROM answers WHERE name = (SELECT answer FROM requests WHERE id=?) AND (SELECT "
       "COUNT(*) FROM requests WHERE answer = name) = 1"},
      {&statements_.forget_answers,
       "DELETE FROM answers WHERE NOT EXISTS (SELECT 1 FROM requests WHERE answer = name)"},
      {&statements_.forget_steps, "DELETE FROM steps WHERE step < ?"},
      {&statements_.forget_ended,
       "DELETE FROM requests WHERE answer IN (SELECT answer FROM requests GROUP BY answer HAVING "
       "COUNT(*) = COUNT(ended) AND MAX(ended) < ?)"},
      {&statements_.note_epoch,
       "INSERT OR REPLACE INTO facts(name, value) VALUES('last_epoch', ?), ('numerics', ?)"},
  };
  for (const auto& [statement, sql] : all) {
    QUIRE_ASSIGN_OR_RETURN(*statement, database_.prepare(sql));
  }
  return absl::OkStatus();
}

absl::StatusOr<JournalFile::Contents> JournalFile::load(absl::Time now) {
  Contents contents;
  absl::Status whole = read(&contents);
  if (whole.ok()) whole = rewrite(contents, now);
  if (absl::IsResourceExhausted(whole)) {  // what has ended makes room for what has not
    rollback();
    std::erase_if(contents.answers, has_ended);
    whole = rewrite(contents, now);
  }
  if (whole.ok()) return contents;
  rollback();
  if (!absl::IsDataLoss(whole)) return whole;
  contents.problems.push_back(absl::StrCat("the file is damaged (", whole.message(), ")"));
  QUIRE_RETURN_IF_ERROR(replace_file());
  QUIRE_RETURN_IF_ERROR(connect());
  QUIRE_RETURN_IF_ERROR(begin());
  for (const SavedAnswer& answer : contents.answers) {
    QUIRE_RETURN_IF_ERROR(add(*answer.record));
    for (const SavedRequest& saved : answer.requests) {
      QUIRE_RETURN_IF_ERROR(add(saved.request));
    }
  }
  QUIRE_RETURN_IF_ERROR(note_epoch(contents.last_epoch));
  QUIRE_RETURN_IF_ERROR(commit());
  QUIRE_RETURN_IF_ERROR(rewrite(contents, now));
  return contents;
}

// The damaged one stays beside the new one, for whoever wants to look.
absl::Status JournalFile::replace_file() {
  statements_ = {};
  database_ = Database();
  const std::string aside =
      absl::StrCat(options_.path, ".damaged-", absl::ToUnixMicros(absl::Now()));
  std::error_code error;
  fs::rename(options_.path, aside, error);
  for (const char* suffix : {"-wal", "-shm"}) {
    std::error_code absent;
    fs::rename(options_.path + suffix, aside + suffix, absent);
  }
  if (error) return refuse(options_.path, absl::StrCat("cannot be moved (", error.message(), ")"));
  return make_or_check(options_.path);
}

absl::Status JournalFile::read(Contents* out) {
  std::map<RequestId, Row> rows;
  absl::Status status = read_requests(&rows, out);
  if (status.ok()) status = read_steps(&rows, out);
  drop_deadly(&rows, out);
  // Answers can be read even where steps cannot.
  const absl::Status answers = read_answers(&rows, out);
  out->last_epoch.epoch = static_cast<EpochId>(std::max<std::int64_t>(fact("last_epoch"), 0));
  out->last_epoch.numerics = static_cast<std::uint64_t>(fact("numerics"));
  for (SavedAnswer& answer : out->answers) {
    for (SavedRequest& saved : answer.requests) saved.numerics = out->last_epoch.numerics;
  }
  return status.ok() ? answers : status;
}

std::int64_t JournalFile::fact(absl::string_view name) {
  const std::string sql = absl::StrCat("SELECT value FROM facts WHERE name='", name, "'");
  return database_.integer(sql.c_str()).value_or(0);
}

absl::Status JournalFile::read_requests(std::map<RequestId, Row>* rows, Contents* out) {
  QUIRE_ASSIGN_OR_RETURN(Statement all,
                         database_.prepare("SELECT id, answer, blob, sum, past, past_sum, ended IS "
                                           "NOT NULL, lives FROM requests ORDER BY id"));
  int of_another_model = 0;
  while (true) {
    QUIRE_ASSIGN_OR_RETURN(const bool more, all.next());
    if (!more) break;
    const auto id = static_cast<RequestId>(all.integer(0));
    out->last_request = std::max(out->last_request, id);
    const auto skip = [&](absl::string_view why) {
      out->problems.push_back(absl::StrCat("request ", id, ": ", why));
    };
    if (sum_of(all.bytes(2)) != all.integer(3) ||
        (!all.bytes(4).empty() && sum_of(all.bytes(4)) != all.integer(5))) {
      skip("its checksum is wrong");
      continue;
    }
    absl::StatusOr<records::StoredRequest> stored = records::decode_request(all.bytes(2));
    absl::StatusOr<std::vector<OutputDelta>> past = records::decode_deltas(all.bytes(4));
    if (!stored.ok() || !past.ok()) {
      skip((stored.ok() ? past.status() : stored.status()).message());
      continue;
    }
    if (stored->model_hash != options_.model_hash) {
      ++of_another_model;
      continue;
    }
    const auto tenant = std::find(options_.tenants.begin(), options_.tenants.end(), stored->tenant);
    if (tenant == options_.tenants.end() && !(options_.tenants.empty() && stored->tenant.empty())) {
      skip("its tenant is not known any more");
      continue;
    }
    Row row{stored->answer, std::move(stored->request), {}, all.integer(6) != 0};
    row.request.id = id;
    row.lives = all.integer(7);
    row.request.tenant =
        options_.tenants.empty() ? 0 : static_cast<int>(tenant - options_.tenants.begin());
    row.past = nothing_yet(id, row.request.n);
    for (const OutputDelta& delta : *past) {
      if (delta.choice < row.request.n) {
        row.past[static_cast<std::size_t>(delta.choice)].append(delta);
      }
    }
    rows->emplace(id, std::move(row));
  }
  if (of_another_model > 0) {
    out->problems.push_back(absl::StrCat(of_another_model, " requests of another model"));
  }
  return absl::OkStatus();
}

absl::Status JournalFile::read_steps(std::map<RequestId, Row>* rows, Contents* out) {
  QUIRE_ASSIGN_OR_RETURN(Statement all,
                         database_.prepare("SELECT step, blob, sum FROM steps ORDER BY step"));
  std::int64_t expected = 0;
  while (true) {
    QUIRE_ASSIGN_OR_RETURN(const bool more, all.next());
    if (!more) return absl::OkStatus();
    const std::int64_t step = all.integer(0);
    absl::StatusOr<std::vector<OutputDelta>> deltas =
        sum_of(all.bytes(1)) == all.integer(2) ? records::decode_deltas(all.bytes(1))
                                               : absl::DataLossError("its checksum is wrong");
    if (expected != 0 && step != expected) deltas = absl::DataLossError("steps before it are gone");
    if (!deltas.ok()) {
      out->problems.push_back(absl::StrCat("step ", step, ": ", deltas.status().message(),
                                           "; tokens from there on are computed again"));
      return absl::OkStatus();
    }
    expected = step + 1;
    for (const OutputDelta& delta : *deltas) {
      const auto row = rows->find(delta.request);
      if (row == rows->end() || row->second.ended || delta.choice >= row->second.request.n)
        continue;
      row->second.past[static_cast<std::size_t>(delta.choice)].append(delta);
      row->second.advanced = true;
    }
  }
}

// A request that lets coordinator after coordinator die would let the next one die, too. The file
// counts this life when it is all read and whole: a start that fails is held against nobody.
void JournalFile::drop_deadly(std::map<RequestId, Row>* rows, Contents* out) {
  lives_.clear();
  for (auto it = rows->begin(); it != rows->end();) {
    const Row& row = it->second;
    const std::int64_t lives = row.advanced ? 1 : row.lives + 1;
    lives_[it->first] = lives;
    if (row.ended || lives <= kMaxIdleLives) {
      ++it;
      continue;
    }
    out->problems.push_back(absl::StrCat("request ", it->first, ": ", kMaxIdleLives,
                                         " coordinators in a row ended without a token of it"));
    it = rows->erase(it);
  }
}

// A call that was not accepted with all its prompts was never heard of by its client.
absl::Status JournalFile::read_answers(std::map<RequestId, Row>* rows, Contents* out) {
  std::map<std::string, std::vector<RequestId>> of_answer;
  for (const auto& [id, row] : *rows) of_answer[row.answer].push_back(id);
  QUIRE_ASSIGN_OR_RETURN(Statement all, database_.prepare("SELECT name, blob, sum FROM answers"));
  while (true) {
    QUIRE_ASSIGN_OR_RETURN(const bool more, all.next());
    if (!more) return absl::OkStatus();
    absl::StatusOr<AnswerRecord> record = sum_of(all.bytes(1)) == all.integer(2)
                                              ? records::decode_answer(all.bytes(1))
                                              : absl::DataLossError("its checksum is wrong");
    if (!record.ok()) {
      out->problems.push_back(
          absl::StrCat("answer ", std::string(all.bytes(0)), ": ", record.status().message()));
      continue;
    }
    SavedAnswer answer{std::make_shared<AnswerRecord>(*std::move(record)), {}};
    answer.requests.resize(static_cast<std::size_t>(answer.record->num_prompts));
    std::size_t found = 0;
    for (const RequestId id : of_answer[answer.record->name]) {
      Row& row = rows->at(id);
      const auto place = static_cast<std::size_t>(row.request.place);
      if (place >= answer.requests.size() || answer.requests[place].request.id != 0) break;
      row.request.answer = answer.record;
      answer.requests[place] = {std::move(row.request), std::move(row.past), 0};
      ++found;
    }
    if (found == answer.requests.size()) out->answers.push_back(std::move(answer));
  }
}

// Afterwards the file holds `contents` and nothing else.
absl::Status JournalFile::rewrite(const Contents& contents, absl::Time now) {
  QUIRE_RETURN_IF_ERROR(begin());
  QUIRE_RETURN_IF_ERROR(
      database_.run("CREATE TEMP TABLE IF NOT EXISTS kept(id INTEGER PRIMARY KEY)"));
  QUIRE_RETURN_IF_ERROR(database_.run("DELETE FROM temp.kept"));
  QUIRE_ASSIGN_OR_RETURN(Statement keep, database_.prepare("INSERT INTO temp.kept(id) VALUES(?)"));
  for (const SavedAnswer& answer : contents.answers) {
    for (const SavedRequest& saved : answer.requests) {
      QUIRE_RETURN_IF_ERROR(keep.bind(1, static_cast<std::int64_t>(saved.request.id)).run());
    }
  }
  // First what goes, so that a full file has room for what stays.
  QUIRE_RETURN_IF_ERROR(
      database_.run("DELETE FROM requests WHERE id NOT IN (SELECT id FROM temp.kept)"));
  QUIRE_RETURN_IF_ERROR(database_.run("DELETE FROM steps"));
  QUIRE_RETURN_IF_ERROR(statements_.forget_answers.run());
  for (const SavedAnswer& answer : contents.answers) {
    for (const SavedRequest& saved : answer.requests) {
      if (saved.ended()) {
        QUIRE_RETURN_IF_ERROR(end(saved.request.id, saved.past, now));
        continue;
      }
      const std::string past = records::encode(saved.past);
      QUIRE_RETURN_IF_ERROR(statements_.go_on.bind(1, past)
                                .bind(2, sum_of(past))
                                .bind(3, lives_[saved.request.id])
                                .bind(4, static_cast<std::int64_t>(saved.request.id))
                                .run());
    }
  }
  QUIRE_RETURN_IF_ERROR(commit());
  return database_.run("PRAGMA incremental_vacuum");
}

absl::Status JournalFile::begin() {
  return statements_.begin.run();
}
absl::Status JournalFile::commit() {
  QUIRE_RETURN_IF_ERROR(statements_.commit.run());
  committed_step_ = last_step_;
  return absl::OkStatus();
}
void JournalFile::rollback() {
  if (database_.in_transaction()) statements_.rollback.run().IgnoreError();
  last_step_ = committed_step_;
}

absl::Status JournalFile::add(const AnswerRecord& answer) {
  const std::string blob = records::encode(answer);
  return statements_.add_answer.bind(1, answer.name).bind(2, blob).bind(3, sum_of(blob)).run();
}

absl::Status JournalFile::add(const Request& request) {
  const std::string blob = records::encode(request, options_.model_hash);
  return statements_.add_request.bind(1, static_cast<std::int64_t>(request.id))
      .bind(2, request.answer->name)
      .bind(3, blob)
      .bind(4, sum_of(blob))
      .run();
}

absl::Status JournalFile::add_step(const std::vector<OutputDelta>& deltas) {
  const std::string blob = records::encode(deltas);
  return statements_.add_step.bind(1, ++last_step_).bind(2, blob).bind(3, sum_of(blob)).run();
}

absl::Status JournalFile::end(RequestId id, const std::vector<OutputDelta>& past, absl::Time now) {
  const std::string blob = records::encode(past);
  return statements_.end.bind(1, blob)
      .bind(2, sum_of(blob))
      .bind(3, absl::ToUnixSeconds(now))
      .bind(4, static_cast<std::int64_t>(id))
      .run();
}

absl::Status JournalFile::remove(RequestId id) {
  QUIRE_RETURN_IF_ERROR(statements_.remove_answer.bind(1, static_cast<std::int64_t>(id)).run());
  return statements_.remove.bind(1, static_cast<std::int64_t>(id)).run();
}

absl::Status JournalFile::forget_steps_before(std::int64_t step) {
  return statements_.forget_steps.bind(1, step).run();
}

absl::Status JournalFile::forget_ended_before(absl::Time time) {
  QUIRE_RETURN_IF_ERROR(statements_.forget_ended.bind(1, absl::ToUnixSeconds(time)).run());
  QUIRE_RETURN_IF_ERROR(statements_.forget_answers.run());
  return database_.run("PRAGMA incremental_vacuum(256)");
}

absl::Status JournalFile::note_epoch(EpochRecord record) {
  return statements_.note_epoch.bind(1, static_cast<std::int64_t>(record.epoch))
      .bind(2, static_cast<std::int64_t>(record.numerics))
      .run();
}

absl::Status JournalFile::forgive() {
  return database_.run("UPDATE requests SET lives = 0");
}

absl::Status JournalFile::probe() {
  database_.checkpoint();
  QUIRE_RETURN_IF_ERROR(
      database_.run("INSERT OR REPLACE INTO facts(name, value) VALUES('probe', zeroblob(65536))"));
  return database_.run("DELETE FROM facts WHERE name='probe'");
}

std::int64_t JournalFile::log_bytes() const {
  return bytes_of(options_.path + "-wal");
}

std::int64_t JournalFile::size_bytes() const {
  return bytes_of(options_.path) + log_bytes();
}

}  // namespace quire
