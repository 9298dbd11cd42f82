// What goes into the journal's file, and what leaves when it is there; journal.h has the thread
// around it. No thread: a batch at a time, each in one commit.
//
// When a commit fails, requests that run go on without the file: it forgets them as soon as it can
// be written again, which every batch, also an empty one, tries.
//
// Invariant: `live_` mirrors what the file says of requests that have not ended.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/engine/journal_port.h"
#include "coordinator/journal/journal_file.h"

namespace quire {

// What has come since the last commit.
struct JournalBatch {
  std::vector<Request> accepted;  // `deliver` is not used
  std::vector<Delivery> deliveries;
  std::vector<RequestId> withdrawn;
  std::optional<EpochRecord> epoch;

  bool empty() const {
    return accepted.empty() && deliveries.empty() && withdrawn.empty() && !epoch.has_value();
  }
};

class JournalWriter {
 public:
  // Reads what is left of an earlier life. Errors: see JournalFile::open. `clock`: the wall's.
  static absl::StatusOr<JournalWriter> open(const JournalOptions& options, Clock clock = absl::Now);

  // Of the earlier life; the first call takes them away.
  std::vector<SavedAnswer> take_saved() { return std::move(contents_.answers); }
  EpochRecord last_epoch() const { return contents_.last_epoch; }
  RequestId last_request() const { return contents_.last_request; }
  const std::vector<std::string>& problems() const { return contents_.problems; }

  // Writes the batch, tells `settle` how that went, and only then delivers. Ok: all of it is in the
  // file. Else nothing is: what it accepts must be refused, and its deliveries leave unwritten.
  void serve(JournalBatch batch, const std::function<void(const absl::Status&)>& settle);
  // The life ends in order.
  void close() { file_.forgive().IgnoreError(); }

  bool writable() const { return writable_; }
  std::uint64_t num_errors() const { return num_errors_; }  // commits that failed
  std::int64_t num_bytes() const { return num_bytes_; }     // of the file; measured now and then

 private:
  struct Live {
    std::vector<OutputDelta> past;  // [choice]
    int num_open = 0;
    std::int64_t first_step = 0;  // of the file, that may speak of it
  };

  JournalWriter(JournalFile file, const JournalOptions& options, JournalFile::Contents contents,
                Clock clock);
  absl::Status write(const JournalBatch& batch);
  absl::Status commit(const JournalBatch& batch);
  void tidy();
  absl::Status add_deliveries(const std::vector<Delivery>& deliveries);
  absl::Status add_end(RequestId id, const Live& live);
  void fail(const absl::Status& status);
  absl::Status try_again();
  std::int64_t oldest_step_needed() const;

  std::string path_;
  absl::Duration keep_;
  Clock clock_;
  JournalFile::Contents contents_;
  JournalFile file_;
  std::unordered_map<RequestId, Live> live_;
  std::vector<RequestId> gone_;     // with the batch that is being written
  std::vector<RequestId> orphans_;  // ran while nothing could be written: to be taken out
  std::int64_t forgotten_before_ = 0;
  absl::Time tidy_due_ = absl::InfinitePast();
  int turns_ = 0;  // of tidy()
  bool writable_ = true;
  std::uint64_t num_errors_ = 0;
  std::int64_t num_bytes_ = 0;
};

}  // namespace quire
