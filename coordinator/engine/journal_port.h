// What the engine needs of a journal; coordinator/journal implements it over SQLite, tests fake it.
// The order is: apply a result, write what it brought, deliver it. The next plan does not wait.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/engine/request.h"

namespace quire {

struct Delivery {
  std::shared_ptr<const DeliverFn> to;  // null: only to be written (the reader ended it)
  OutputDelta delta;
  bool is_written = true;  // false: the server stops; in its next life the choice goes on
};

struct JournalStats {
  std::int64_t bytes = 0;    // of the file and its write-ahead log
  std::uint64_t errors = 0;  // commits that failed
  double lag_s = 0;          // from a result to its commit: exponential mean
  bool writable = true;
};

class JournalPort {
 public:
  virtual ~JournalPort() = default;
  // Any thread. Ok: a crash does not lose the request any more. Aborted: nothing can be written.
  virtual absl::Status accept(const Request& request) = 0;
  // An accepted one was refused after all: it leaves no trace.
  virtual void withdraw(RequestId id) = 0;
  // The engine's thread; never blocks. Delivers in order, from one thread, what has been written.
  virtual void release(std::vector<Delivery> deliveries) = 0;
  virtual JournalStats stats() const = 0;  // any thread
};

}  // namespace quire
