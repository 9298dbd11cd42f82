// One life of the coordinator without threads: the real Intake, StepLoop, Groups and JournalWriter,
// and between them what Engine, Fleet, Journal and the api do with threads, as events in virtual
// time. It may die at any event, and in the middle of some.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/api/kept_answer.h"
#include "coordinator/engine/intake.h"
#include "coordinator/engine/step_loop.h"
#include "coordinator/fleet/groups.h"
#include "coordinator/journal/journal_writer.h"
#include "tests/fakes/faulty_disk.h"
#include "tests/simulation/coordinator_world.h"
#include "tests/simulation/virtual_network.h"
#include "tests/simulation/virtual_time.h"

namespace quire::test {

// What a client sends: a new call, or one that goes on.
struct Call {
  std::string name;                  // Idempotency-Key; empty: it ends with its connection
  std::vector<Request> requests;     // [place], without `deliver`
  std::vector<EventId::Choice> had;  // [choice], over all of them
  bool was_accepted = false;         // it has heard so
};
// How a call's connection is answered.
struct Connection {
  std::function<void()> accepted;
  std::function<void(absl::Status)> refused;  // Unavailable: come again
  std::function<void()> unknown;              // there is no such answer
  std::function<void(int place, OutputDelta)> delta;
};

// What the world hears of it.
struct CoordinatorEvents {
  std::function<void(absl::Status)> broken;  // a promise
  std::function<void()> died;                // by a fault of its own, in the middle of something
  // With what the file brought, and what it lacks, before anybody is served.
  std::function<void(const std::vector<SavedAnswer>&, const std::vector<std::string>&)> began;
  std::function<void(EpochId)> issued, noted;              // noted: in the file
  std::function<void(const std::string& instance)> ended;  // an epoch
  std::function<void()> journal_failed;
};

class VirtualCoordinator final : public GroupPort {
 public:
  struct Parts {
    CoordinatorWorld* world;
    VirtualTime* time;
    VirtualNetwork* network;
    FaultyDisk* disk;
    JournalOptions journal;
    CoordinatorEvents events;
  };
  static absl::StatusOr<std::unique_ptr<VirtualCoordinator>> start(Parts parts);
  ~VirtualCoordinator() override;  // kill -9: it writes nothing any more

  // Nothing of it happens for so long. False: it is paused already.
  bool pause(absl::Duration pause);
  // At the next commit that has deliveries it dies, before, within or behind them.
  void die_in_turn() { dies_in_turn_ = true; }
  // No call is taken any more; `idle` when none is unfinished.
  void drain(std::function<void()> idle);
  // Everything ends in order. False: it died of it.
  bool stop();
  bool is_dying() const { return is_dying_; }

  std::uint64_t call(Call call, Connection connection);  // a name for hang_up()
  void hang_up(std::uint64_t connection);
  void cancel(const std::string& name);
  void stop_choice(const std::string& name, int place, int choice);

  EngineStats stats() const { return loop_.stats(); }
  std::string describe() const { return groups_.describe(); }
  std::uint64_t stale_dropped() const;

  void send(const StepPlan& plan) override;
  void end_epoch(EpochId epoch, EndCause cause, const std::string& why) override;

 private:
  struct Kept {
    std::shared_ptr<KeptAnswer> answer;
    std::set<std::uint64_t> connections;
    absl::Time left;           // when the last of them went
    bool is_accepted = false;  // in the file, and with the loop
  };
  struct Caller {
    Connection connection;
    std::string name;
    std::shared_ptr<KeptAnswer> answer;
    int listener = 0;
    std::vector<EventId::Choice> had;
  };
  struct Submission {  // a call that is being accepted
    std::uint64_t caller = 0;
    std::string name;
    std::shared_ptr<KeptAnswer> answer;
    std::vector<Request> requests;
    std::vector<RequestId> ids;  // of those that were
  };
  struct Acceptance {
    Intake::Entered entered;
    std::shared_ptr<Submission> of;
  };
  struct Batch {
    JournalBatch journal;
    std::vector<Acceptance> accepted;
  };

  VirtualCoordinator(Parts parts, JournalWriter writer);
  void later(absl::Duration wait, std::function<void()> what);
  void now_or_later(std::function<void()> what);
  void die();

  // the loop's thread
  void post(Message message);
  void turn();
  void arm_wake();
  // the fleet's
  GroupActions react(LinkId link, Up message);
  void run(GroupActions actions);
  void perform(action::Refuse& what);
  void perform(action::Welcome& what);
  void perform(action::Relay& what);
  void perform(action::Broadcast& what);
  void perform(action::Close& what);
  void perform(action::Ready& what);
  void perform(action::Result& what);
  void perform(action::Ended& what);
  void perform(action::Lost& what);
  void tick();
  void check_hangs();
  // the journal's
  void wake_journal();
  void keep_trying();
  void commit();
  bool may_deliver();
  void settle(Acceptance acceptance, const absl::Status& written);
  // the api's
  void take_up(std::vector<SavedAnswer> saved);
  void submit_next(const std::shared_ptr<Submission>& of);
  void hand_over(Acceptance acceptance);
  void accepted(const Submission& of);
  void give_up(const Submission& of, const absl::Status& why);
  void attach(std::uint64_t caller);
  void leave_abandoned();

  const Parts parts_;
  CoordinatorWorld& world_;
  VirtualTime& time_;
  std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
  bool is_dying_ = false, is_stopping_ = false, is_draining_ = false, dies_in_turn_ = false,
       dies_delivering_ = false;
  absl::Time paused_until_;

  Intake intake_;
  StepLoop loop_;
  std::vector<Message> mailbox_;
  bool turn_is_due_ = false;
  std::uint64_t wakes_ = 0;

  Groups groups_;
  std::set<LinkId> links_, presented_;
  std::map<LinkId, absl::Time> last_heard_;
  // [epoch] When the plans in flight were sent.
  std::map<EpochId, std::deque<absl::Time>> unanswered_;
  bool is_ready_ = false;  // as the engine's owner hears it

  JournalWriter writer_;
  Batch batch_, writing_;
  bool commit_is_due_ = false;

  std::map<std::string, Kept> answers_;
  std::map<std::uint64_t, Caller> callers_;
  std::uint64_t last_caller_ = 0;
};

}  // namespace quire::test
