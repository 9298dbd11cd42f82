// The answers that outlive their connections, by name and by Idempotency-Key. An unfinished one
// that nobody listens to is cancelled after the grace; a finished one can be fetched again for some
// minutes. Names and keys of one tenant mean nothing to another.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/api/kept_answer.h"
#include "coordinator/engine/engine.h"

namespace quire {

struct AnswerBookOptions {
  absl::Duration grace = absl::Seconds(30);
  absl::Duration keep = absl::Minutes(10);  // of what has ended
  std::size_t max_bytes = 256u << 20;       // beyond it those that ended first go
};

class AnswerBook {
 public:
  // `engine` outlives it.
  AnswerBook(Engine* engine, AnswerBookOptions options);
  ~AnswerBook();

  // What an earlier coordinator left: unfinished ones go on. Before Engine::start(). Returns how
  // many requests go on; one that cannot be is said in the log.
  int restore(std::vector<SavedAnswer> answers);

  // The answer under the record's key, or a new one that is under it from now on. AlreadyExists if
  // the key stands for another call.
  struct Entry {
    std::shared_ptr<KeptAnswer> answer;
    bool is_new = false;
  };
  // `begin` is called with the new one before anybody else can see it.
  absl::StatusOr<Entry> open(std::shared_ptr<const AnswerRecord> record, int tenant,
                             const std::function<void(KeptAnswer&)>& begin);
  void remove(const KeptAnswer& answer);                                  // it was refused
  std::shared_ptr<KeptAnswer> find(int tenant, const std::string& name);  // null: there is none
  std::shared_ptr<KeptAnswer> find_by_key(int tenant, const std::string& key);

 private:
  using Name = std::pair<int, std::string>;
  void add(const std::shared_ptr<KeptAnswer>& answer);
  void remove_locked(const KeptAnswer& answer);
  void watch();
  void tidy(absl::Time now);

  Engine* const engine_;
  const AnswerBookOptions options_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable news_;
  std::map<Name, std::shared_ptr<KeptAnswer>> by_name_;
  std::map<Name, std::shared_ptr<KeptAnswer>> by_key_;
  bool closed_ = false;
  std::thread thread_;  // last
};

}  // namespace quire
