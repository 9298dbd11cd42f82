// The journal's file: tables, who may have it, and what can be read of it after a crash.
//
//   answers(name, blob, sum)                            a client's call
//   requests(id, answer, blob, sum, past, past_sum, ended, lives)
//                                                       one of its prompts; `past`: what it had
//                                                       gained at the last start, or in all;
//                                                       `ended`: unix seconds, null while it
//                                                       runs; `lives`: starts in a row that
//                                                       brought it no token
//   steps(step, blob, sum)                              what all requests gained, a commit each
//   facts(name, value)                                  last_epoch, numerics (of its group)
//
// Steps are contiguous. A row whose checksum is wrong is skipped and named; a step that is missing
// or wrong ends what is believed of steps, for tokens must not have gaps: they are computed again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "coordinator/engine/request.h"
#include "coordinator/journal/database.h"

namespace quire {

struct JournalOptions {
  std::string path;
  std::string sync = "off";  // off: survives a crash of the process; normal, full: of the machine
  std::uint64_t model_hash = 0;
  std::vector<std::string> tenants;         // names, [tenant]; empty: there are none
  absl::Duration keep = absl::Minutes(10);  // what has ended
  std::int64_t max_bytes = 1 << 30;         // of the file
};

struct EpochRecord {
  EpochId epoch = 0;
  std::uint64_t numerics = 0;  // of its group; 0: unknown
};

class JournalFile {
 public:
  // Makes the file where there is none, mode 0600. FailedPrecondition or Unavailable with a
  // sentence that names the file: it is another's, of another version or in use.
  static absl::StatusOr<JournalFile> open(const JournalOptions& options);

  struct Contents {
    std::vector<SavedAnswer> answers;  // whole ones; requests are ordered by place
    EpochRecord last_epoch;
    RequestId last_request = 0;
    std::vector<std::string> problems;  // what was skipped, and why
  };
  // Reads everything and leaves in the file what it returns. Damage beyond rows is cured by a new
  // file; the old one stays beside it.
  absl::StatusOr<Contents> load(absl::Time now);

  // --- writing: begin(), anything, commit(); after an error rollback() ---
  absl::Status begin();
  absl::Status commit();
  void rollback();
  absl::Status add(const AnswerRecord& answer);
  absl::Status add(const Request& request);
  absl::Status add_step(const std::vector<OutputDelta>& deltas);
  absl::Status end(RequestId id, const std::vector<OutputDelta>& past, absl::Time now);
  absl::Status remove(RequestId id);  // and its answer, if nothing else is left of that
  absl::Status forget_steps_before(std::int64_t step);
  absl::Status forget_ended_before(absl::Time time);
  absl::Status note_epoch(EpochRecord record);

  absl::Status probe();  // ok: there is room again for some steps
  // The life ends in order: nobody died of what is unfinished.
  absl::Status forgive();

  std::int64_t last_step() const { return last_step_; }
  void checkpoint() { database_.checkpoint(); }
  std::int64_t log_bytes() const;   // of the write-ahead log
  std::int64_t size_bytes() const;  // of the file and its write-ahead log

 private:
  struct Row;  // a request as it is read
  struct Statements {
    Statement begin, commit, rollback, add_answer, add_request, add_step, end, remove,
        remove_answer, forget_answers, forget_steps, forget_ended, note_epoch, go_on;
  };
  explicit JournalFile(JournalOptions options) : options_(std::move(options)) {}
  absl::Status connect();
  absl::Status prepare_all();
  absl::Status read(Contents* out);
  std::int64_t fact(absl::string_view name);  // 0: it is not there
  absl::Status read_requests(std::map<RequestId, Row>* rows, Contents* out);
  absl::Status read_steps(std::map<RequestId, Row>* rows, Contents* out);
  void drop_deadly(std::map<RequestId, Row>* rows, Contents* out);
  absl::Status read_answers(std::map<RequestId, Row>* rows, Contents* out);
  absl::Status rewrite(const Contents& contents, absl::Time now);
  absl::Status replace_file();

  JournalOptions options_;
  Database database_;
  Statements statements_;  // of database_
  // Of what load() has read: starts in a row that brought it no token, with this one.
  std::map<RequestId, std::int64_t> lives_;
  std::int64_t last_step_ = 0, committed_step_ = 0;
};

}  // namespace quire
