// The journal: what clients were promised, and what they were given, in one SQLite file. A thread
// of its own writes: everything that has come since its last commit goes into the next one, then
// deliveries leave. So a token that a client has is in the file, and a step never waits for it.
//
// When the file cannot be written (no space, an I/O error), requests that run go on without it, new
// ones are refused, and every second it is tried again; what ran meanwhile is taken out of the
// file.
//
// Invariant: `live_` mirrors what the file says of requests that have not ended.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/engine/journal_port.h"
#include "coordinator/journal/journal_file.h"

namespace quire {

class Journal final : public JournalPort {
 public:
  // Reads what is left of an earlier life. Errors: see JournalFile::open.
  static absl::StatusOr<std::unique_ptr<Journal>> open(const JournalOptions& options);
  ~Journal() override;
  // Writes and delivers what is left and joins; nothing is accepted any more. The engine has
  // stopped.
  void close();

  // Of the earlier life; the first call takes them away.
  std::vector<SavedAnswer> take_saved() { return std::move(contents_.answers); }
  EpochId last_epoch() const { return contents_.last_epoch; }
  RequestId last_request() const { return contents_.last_request; }
  const std::vector<std::string>& problems() const { return contents_.problems; }

  absl::Status accept(const Request& request) override;
  void withdraw(RequestId id) override;
  void release(std::vector<Delivery> deliveries) override;
  void note_epoch(EpochId epoch);  // any thread; does not wait
  JournalStats stats() const override;

 private:
  struct Acceptance;
  struct Batch;
  struct Live {
    std::vector<OutputDelta> past;  // [choice]
    int num_open = 0;
    std::int64_t first_step = 0;  // of the file, that may speak of it
  };

  Journal(JournalFile file, const JournalOptions& options, JournalFile::Contents contents);
  void run();
  void serve(Batch batch);
  absl::Status write(const Batch& batch);
  absl::Status write_deliveries(const std::vector<Delivery>& deliveries);
  absl::Status write_end(RequestId id, const Live& live);
  void fail(const absl::Status& status);
  absl::Status try_again();
  void tidy(absl::Time now);
  std::int64_t oldest_step_needed() const;

  const std::string path_;
  const absl::Duration keep_;
  JournalFile::Contents contents_;

  // The thread's.
  JournalFile file_;
  std::unordered_map<RequestId, Live> live_;
  std::vector<RequestId> gone_;     // with the batch that is being written
  std::vector<RequestId> orphans_;  // ran while nothing could be written: to be taken out
  std::int64_t forgotten_before_ = 0;
  absl::Time tidy_due_ = absl::InfinitePast();
  int turns_ = 0;  // of the thread

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable news_;
  std::unique_ptr<Batch> next_;
  bool closed_ = false;
  JournalStats stats_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace quire
