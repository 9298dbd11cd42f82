// The journal: what clients were promised, and what they were given, in one SQLite file. A thread
// of its own writes: everything that has come since its last commit goes into the next one, then
// deliveries leave. So a token that a client has is in the file, and a step never waits for it.
//
// When the file cannot be written (no space, an I/O error), requests that run go on without it, new
// ones are refused, and every second it is tried again.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/engine/journal_port.h"
#include "coordinator/journal/journal_writer.h"

namespace quire {

class Journal final : public JournalPort {
 public:
  // Reads what is left of an earlier life. Errors: see JournalFile::open.
  static absl::StatusOr<std::unique_ptr<Journal>> open(const JournalOptions& options);
  ~Journal() override;
  // Writes and delivers what is left and joins; nothing is accepted any more. The engine has
  // stopped.
  void close();

  // Of the earlier life; the first call takes them away. Before the engine starts.
  std::vector<SavedAnswer> take_saved() { return writer_.take_saved(); }
  EpochRecord last_epoch() const { return writer_.last_epoch(); }
  RequestId last_request() const { return writer_.last_request(); }
  const std::vector<std::string>& problems() const { return writer_.problems(); }

  absl::Status accept(const Request& request) override;
  void withdraw(RequestId id) override;
  void release(std::vector<Delivery> deliveries) override;
  void note_epoch(EpochRecord epoch);  // any thread; does not wait
  JournalStats stats() const override;

 private:
  struct Acceptance;
  struct Next;

  Journal(JournalWriter writer, std::string path);
  void run();
  void serve(Next next);

  const std::string path_;
  JournalWriter writer_;  // the thread's, but for what is of the earlier life

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable news_;
  std::unique_ptr<Next> next_;
  bool closed_ = false;
  JournalStats stats_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace quire
