// One Generate call on its way out: the intake thread begins it, deltas come from the delivery
// thread, are coalesced per choice while a write is pending, and leave one write at a time. It
// never waits for its client: what waits is bounded, and beyond the bound the call ends.
//
// It lives until gRPC is done with it and nobody delivers to it any more (shared ownership); every
// way it can end early (disconnect, deadline, Cancel, too slow) cancels the engine's request.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/api/best_of.h"
#include "coordinator/api/choice_text.h"
#include "coordinator/api/kept_answer.h"
#include "generate.pb.h"

namespace quire {

class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateReply>,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  struct Setup {
    std::string request_id;
    std::size_t max_buffered_bytes = 0;
    absl::Duration write_timeout;
    std::function<void()> on_done;                   // gRPC is done with it
    grpc::CallbackServerContext* context = nullptr;  // lives until Finish at least
  };
  GenerateStream(const Api& api, Setup setup) : api_(api), setup_(std::move(setup)) {}

  const std::string& request_id() const { return setup_.request_id; }
  // gRPC holds raw pointers: the stream keeps itself alive from here to OnDone.
  void keep_alive() { self_ = shared_from_this(); }
  // Intake thread, in this order: what was asked (`had`, empty or per choice, is what the client
  // has of it), then that the engine has taken it; or else that the answer is kept and goes on
  // without us: then we only listen to it.
  void begin(const Prepared& prepared, const std::vector<EventId::Choice>& had = {});
  void submitted(RequestId id);
  void listens(std::shared_ptr<KeptAnswer> kept, int listener);

  void take(OutputDelta delta);    // delivery thread only, in order
  void cancel();                   // the Cancel call: ends with finish_reason "cancelled"
  void fail(grpc::Status status);  // ends at once, dropping what waits
  // The same, telling the client when to come again.
  void refuse(grpc::Status status, absl::Duration retry_after);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Choice {
    ChoiceText text;
    EventId::Choice had = {};  // what is left of what the client has
    absl::Time last_token = absl::InfinitePast();
  };

  void take_part(OutputDelta part);
  void observe(Choice& choice, const ChoiceText::Piece& piece) const;
  void count_had(int choice, OutputDelta had);
  void add(int choice, ChoiceText::Piece piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void end_choice(FinishReason finish, const std::string& error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void end_all() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);  // every choice has ended by itself
  void keep_the_best() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void fail_locked(grpc::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void stop_request() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);   // the next write, or Finish
  void write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);  // reply_
  void check_reader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void write_usage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Api api_;
  const Setup setup_;
  const absl::Time start_ = steady_now();
  // Written by begin(), then the delivery thread's.
  int prompt_tokens_ = 0;
  int max_tokens_ = 0;
  int num_returned_ = 1;  // of the choices
  bool hide_logprobs_ = false;
  bool whole_ = false;  // choices come whole, at the end: what waits for the client is not bounded
  std::vector<Choice> choices_;
  std::shared_ptr<GenerateStream> self_;

  absl::Mutex mutex_;
  RequestId id_ ABSL_GUARDED_BY(mutex_) = 0;                  // 0 until submitted
  std::shared_ptr<KeptAnswer> kept_ ABSL_GUARDED_BY(mutex_);  // null: it ends with the call
  int listener_ ABSL_GUARDED_BY(mutex_) = 0;                  // there
  std::vector<std::deque<v1::Delta>> waiting_ ABSL_GUARDED_BY(mutex_);  // [choice], in order
  std::size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t next_choice_ ABSL_GUARDED_BY(mutex_) = 0;  // whose turn it is
  int open_choices_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<BestOf> best_of_ ABSL_GUARDED_BY(mutex_);
  bool late_ ABSL_GUARDED_BY(mutex_) = false;  // a choice was ended by the deadline
  bool held_ ABSL_GUARDED_BY(mutex_) = false;  // nothing is written before every choice has ended
  std::uint32_t cached_tokens_ ABSL_GUARDED_BY(mutex_) = 0;  // of the prompt
  std::uint32_t completion_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // by the Cancel call
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;    // the engine need not go on
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time write_began_ ABSL_GUARDED_BY(mutex_);
  bool usage_written_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);  // to finish with, once all is written
  v1::GenerateReply reply_ ABSL_GUARDED_BY(mutex_);          // the one being written
};

}  // namespace quire
