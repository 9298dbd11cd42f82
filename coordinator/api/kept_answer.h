// A client's call that outlives its connection: what its requests have delivered so far, and who
// listens. Answers with an Idempotency-Key, and those that an earlier coordinator left, are kept;
// all others end with their connection.
//
// Invariant: a listener hears every delta exactly once and in order: first all that was, in one
// piece per choice, then what comes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/api/event_id.h"
#include "coordinator/engine/request.h"

namespace quire {

class KeptAnswer : public std::enable_shared_from_this<KeptAnswer> {
 public:
  // Called with a lock held: it only leaves a message. `place`: which of the answer's prompts.
  using Listener = std::function<void(int place, OutputDelta delta)>;

  KeptAnswer(std::shared_ptr<const AnswerRecord> record, int tenant)
      : record_(std::move(record)), tenant_(tenant), left_at_(steady_now()) {}

  const AnswerRecord& record() const { return *record_; }
  const std::shared_ptr<const AnswerRecord>& shared_record() const { return record_; }
  int tenant() const { return tenant_; }

  // Before anybody listens, in order of place: a prompt, its n choices and what they have had.
  void add_prompt(int n) { add_prompt(nothing_yet(0, n)); }
  void add_prompt(std::vector<OutputDelta> past);
  DeliverFn deliver_to(int place);  // what its request delivers to
  void submitted(int place, RequestId id);
  // Its listener found a stop string: the engine is to end this choice of the request that is
  // returned, and says nothing more of it.
  RequestId stop(int place, int choice);
  // Ends what is open: the answer was refused or cannot go on.
  void fail(const std::string& error);

  int listen(Listener listener);  // a name for leave()
  void leave(int listener);

  // Whether a client can have so many tokens of a choice (counted over all prompts). It may be
  // ahead of what is known here, up to `max_tokens`, unless the model itself has ended the choice:
  // where the journal could not be written or has lost its end, tokens are computed again, and a
  // deadline may end that early.
  bool covers(int choice, int num_tokens, int max_tokens) const;
  bool ended() const;
  std::vector<int> shape() const;           // choices of each prompt
  std::vector<RequestId> requests() const;  // what to cancel
  // Since when nobody listens; InfiniteFuture while somebody does.
  absl::Time left_at() const;
  absl::Time ended_at() const;  // InfiniteFuture: not yet
  std::size_t num_bytes() const;

 private:
  void take(int place, OutputDelta delta);

  const std::shared_ptr<const AnswerRecord> record_;
  const int tenant_;
  mutable std::mutex mutex_;                     // guards what follows
  std::vector<std::vector<OutputDelta>> pasts_;  // [place][choice]
  std::vector<RequestId> ids_;                   // [place]
  std::map<int, Listener> listeners_;
  int last_listener_ = 0;
  int num_open_ = 0;  // choices
  std::size_t num_bytes_ = 0;
  absl::Time left_at_;
  absl::Time ended_at_ = absl::InfiniteFuture();
};

// Takes off `delta` what its client has, and from `had` what that was. The part taken off, or
// nothing; `delta` may be empty then.
std::optional<OutputDelta> take_had(EventId::Choice* had, OutputDelta* delta);

}  // namespace quire
