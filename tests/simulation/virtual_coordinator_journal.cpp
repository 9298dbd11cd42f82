// The journal's thread: what it writes, and what it tells those that wait.
#include <algorithm>
#include <utility>

#include "tests/simulation/virtual_coordinator.h"

namespace quire::test {
namespace {

constexpr absl::Duration kTryAgain = absl::Seconds(1);

}  // namespace

void VirtualCoordinator::wake_journal() {
  if (std::exchange(commit_is_due_, true)) return;
  // What comes until the commit begins goes into it; what comes while it lasts, into the next.
  later(world_.about(world_.commit_time / 4), [this] {
    writing_ = std::exchange(batch_, {});
    later(world_.about(world_.commit_time), [this] { commit(); });
  });
}

void VirtualCoordinator::keep_trying() {
  later(kTryAgain, [this] {
    wake_journal();
    keep_trying();
  });
}

// After its death the rest of this still runs, but nothing of it reaches file, clients or ranks.
void VirtualCoordinator::commit() {
  Batch batch = std::exchange(writing_, {});
  const bool has_deliveries = !batch.journal.deliveries.empty();
  const std::optional<EpochRecord> epoch = batch.journal.epoch;
  dies_delivering_ = dies_in_turn_ && has_deliveries;
  writer_.serve(std::move(batch.journal), [&](const absl::Status& written) {
    if (parts_.disk->dead()) die();
    if (is_dying_) return;
    if (!written.ok()) parts_.events.journal_failed();
    if (written.ok() && epoch.has_value()) parts_.events.noted(epoch->epoch);
    if (dies_delivering_ && world_.chance(0.3)) return die();
    for (Acceptance& acceptance : batch.accepted) settle(std::move(acceptance), written);
  });
  if (dies_delivering_ || parts_.disk->dead()) die();
  commit_is_due_ = false;
  if (!batch_.journal.empty()) wake_journal();
}

// On its way to a client. False: it does not get there.
bool VirtualCoordinator::may_deliver() {
  if (dies_delivering_ && world_.chance(0.3)) die();
  return !is_dying_;
}

void VirtualCoordinator::settle(Acceptance acceptance, const absl::Status& written) {
  // Now and then its caller has given up waiting.
  const bool abandoned = world_.chance(0.02);
  if (written.ok() && !abandoned && !is_stopping_) return hand_over(std::move(acceptance));
  const Request& request = acceptance.entered.request;
  intake_.turn_away(std::ssize(request.prompt));
  if (!written.ok()) return give_up(*acceptance.of, absl::AbortedError(written.message()));
  batch_.journal.withdrawn.push_back(request.id);
  wake_journal();
  give_up(*acceptance.of, absl::UnavailableError("nobody waits for it"));
}

void VirtualCoordinator::drain(std::function<void()> idle) {
  is_draining_ = true;
  post(AwaitIdle{std::move(idle)});
}

bool VirtualCoordinator::stop() {
  is_stopping_ = true;
  std::vector<Message> inbox = std::exchange(mailbox_, {});
  loop_.end(&inbox);
  for (int i = 0; i < 4 && !is_dying_; ++i) {  // what was being written, and what that brings
    commit();
    writing_ = std::exchange(batch_, {});
  }
  if (is_dying_) return false;
  writer_.close();
  return !parts_.disk->dead();
}

}  // namespace quire::test
