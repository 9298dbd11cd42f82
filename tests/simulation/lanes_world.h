// The engine's loop with several worker groups that compute the hash model, on a clock that the
// test turns: no thread, no waiting. Groups come, die and answer when the test says so.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/engine/step_loop.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

struct LanesSetup {
  SchedulerConfig scheduler;
  std::vector<int> blocks;  // [seat] of its groups
  HashModel model;
};

class LanesWorld final : public GroupPort {
 public:
  explicit LanesWorld(const LanesSetup& setup);

  // What one request has gained, and what was wrong with how.
  struct Answer {
    Request request;                   // as it was asked for
    std::vector<OutputDelta> choices;  // [choice] from the beginning
    bool ended() const;
  };

  // --- what happens; nothing of it is seen before turn() ---
  RequestId submit(Request request);
  void cancel(RequestId id) { inbox_.push_back(CancelRequest{id}); }
  void stop_choice(RequestId id, int choice);
  void attach(int seat);
  void kill(int seat);
  void answer(int seat);  // the oldest plan that waits there, if any
  void turn();
  // Turns until nothing is unfinished; every group answers in turn. False: it takes too long.
  bool finish(int most_turns = 5000);

  // --- what can be seen ---
  bool is_there(int seat) const { return groups_[at(seat)].worker != nullptr; }
  int num_plans(int seat) const { return static_cast<int>(groups_[at(seat)].plans.size()); }
  // Requests whose prompts were admitted there since the last call, in order.
  std::vector<std::vector<TokenId>> take_admitted(int seat);
  const Answer& of(RequestId id) const { return answers_.at(id); }
  const std::map<RequestId, Answer>& answers() const { return answers_; }
  EngineStats stats() const { return loop_.stats(); }
  void pass(absl::Duration time) { now_ += time; }
  // The first rule that was broken by the loop or by a plan; ok if none was.
  const absl::Status& broken() const { return broken_; }
  // What every choice of a request must be: computed by one group alone.
  std::vector<std::vector<TokenId>> oracle(Request request) const;

  // A group dies when it is to compute anything of a prompt with this token.
  void set_poison(TokenId poison) { poison_ = poison; }
  int num_deaths() const { return num_deaths_; }

  // GroupPort
  void send(const StepPlan& plan) override;
  void end_epoch(EpochId epoch, EndCause cause, const std::string& why) override;

 private:
  struct GroupOfSeat {
    EpochId epoch = 0;
    std::unique_ptr<HashWorker> worker;  // null: nobody is there
    std::deque<StepPlan> plans;
    std::vector<std::vector<TokenId>> admitted;
    std::map<SlotId, bool> poisoned;
  };
  static std::size_t at(int seat) { return static_cast<std::size_t>(seat); }
  void note(const absl::Status& status);
  void deliver(RequestId id, const OutputDelta& delta);
  HashWorkerConfig worker_config(EpochId epoch, int num_blocks) const;

  const LanesSetup setup_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  StepLoop loop_;
  std::vector<Message> inbox_;
  std::vector<GroupOfSeat> groups_;  // [seat]
  EpochId last_epoch_ = 0;
  RequestId last_request_ = 0;
  std::map<RequestId, Answer> answers_;
  std::set<std::pair<RequestId, int>> stopped_;  // choices
  absl::Status broken_;
  TokenId poison_ = -1;
  int num_deaths_ = 0;
};

}  // namespace quire::test
