#include "tests/simulation/lanes_world.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace quire::test {

LanesWorld::LanesWorld(const LanesSetup& setup)
    : setup_(setup),
      loop_(
          setup.scheduler, StepDeadline(absl::Minutes(1), absl::ZeroDuration()),
          [this] { return now_; }, static_cast<int>(setup.blocks.size())),
      groups_(setup.blocks.size()) {
  loop_.begin(this);
}

bool LanesWorld::Answer::ended() const {
  return std::all_of(choices.begin(), choices.end(), [](const OutputDelta& choice) {
    return choice.finish != FinishReason::kNone;
  });
}

HashWorkerConfig LanesWorld::worker_config(EpochId epoch, int num_blocks) const {
  HashWorkerConfig config;
  config.epoch = epoch;
  config.num_blocks = num_blocks;
  config.block_size = setup_.scheduler.block_size;
  config.max_num_seqs = setup_.scheduler.max_num_seqs;
  config.max_num_batched_tokens = setup_.scheduler.max_num_batched_tokens;
  config.model = setup_.model;
  config.cost = {.step_us = 100, .token_us = 10, .pick_us = 1, .context_us = 0};
  return config;
}

RequestId LanesWorld::submit(Request request) {
  request.id = ++last_request_;
  request.arrival = now_;
  Answer& answer = answers_[request.id];
  answer.choices = nothing_yet(request.id, request.n);
  request.deliver = [this, id = request.id](const OutputDelta& delta) { deliver(id, delta); };
  answer.request = request;
  inbox_.push_back(std::move(request));
  return last_request_;
}

void LanesWorld::stop_choice(RequestId id, int choice) {
  OutputDelta& known = answers_.at(id).choices[at(choice)];
  if (known.finish == FinishReason::kNone) {
    known.finish = FinishReason::kStop;
    stopped_.insert({id, choice});
  }
  inbox_.push_back(StopChoice{id, choice});
}

void LanesWorld::deliver(RequestId id, const OutputDelta& delta) {
  if (stopped_.contains({id, delta.choice})) return;  // its reader has gone
  OutputDelta& known = answers_.at(id).choices[at(delta.choice)];
  if (known.finish != FinishReason::kNone) {
    return note(absl::InternalError(absl::StrCat("request ", id, " goes on after its end")));
  }
  known.append(delta);
}

void LanesWorld::attach(int seat) {
  GroupOfSeat& group = groups_[at(seat)];
  group.epoch = ++last_epoch_;
  group.worker = std::make_unique<HashWorker>(worker_config(group.epoch, setup_.blocks[at(seat)]));
  GroupReady ready;
  ready.epoch = group.epoch;
  ready.num_blocks = setup_.blocks[at(seat)];
  ready.seat = seat;
  ready.instance = absl::StrCat("group", group.epoch);
  inbox_.push_back(ready);
}

void LanesWorld::kill(int seat) {
  GroupOfSeat& group = groups_[at(seat)];
  if (group.worker == nullptr) return;
  ++num_deaths_;
  inbox_.push_back(GroupLost{group.epoch, EndCause::kRankGone});
  group = {};
}

void LanesWorld::answer(int seat) {
  GroupOfSeat& group = groups_[at(seat)];
  if (group.plans.empty()) return;
  const StepPlan plan = std::move(group.plans.front());
  group.plans.pop_front();
  for (const SlotId slot : plan.releases) group.poisoned.erase(slot);
  for (const AdmitRow& admit : plan.admits) {
    group.poisoned[admit.slot] =
        std::find(admit.tokens.begin(), admit.tokens.end(), poison_) != admit.tokens.end();
  }
  for (const PlanRow& row : plan.rows) {
    if (group.poisoned[row.slot]) return kill(seat);
  }
  StepResult result;
  note(group.worker->run(plan, &result));
  inbox_.push_back(std::move(result));
}

void LanesWorld::turn() {
  now_ += absl::Milliseconds(1);
  loop_.turn(&inbox_);
  inbox_.clear();
  note(loop_.verify());
}

bool LanesWorld::finish(int most_turns) {
  turn();
  for (int i = 0; i < most_turns && stats().unfinished > 0; ++i) {
    for (int seat = 0; seat < static_cast<int>(groups_.size()); ++seat) answer(seat);
    turn();
  }
  return stats().unfinished == 0;
}

std::vector<std::vector<TokenId>> LanesWorld::take_admitted(int seat) {
  return std::exchange(groups_[at(seat)].admitted, {});
}

void LanesWorld::note(const absl::Status& status) {
  if (broken_.ok()) broken_ = status;
}

void LanesWorld::send(const StepPlan& plan) {
  for (GroupOfSeat& group : groups_) {
    if (group.worker == nullptr || group.epoch != plan.epoch) continue;
    group.plans.push_back(plan);
    for (const AdmitRow& admit : plan.admits) {
      if (admit.fork_of < 0) group.admitted.push_back(admit.tokens);
    }
  }
}

// A step was overdue.
void LanesWorld::end_epoch(EpochId epoch, EndCause, const std::string&) {
  for (GroupOfSeat& group : groups_) {
    if (group.worker != nullptr && group.epoch == epoch) group = {};
  }
  ++num_deaths_;
}

std::vector<std::vector<TokenId>> LanesWorld::oracle(Request request) const {
  SchedulerConfig config = setup_.scheduler;
  config.steps_in_flight = 1;
  Scheduler scheduler(config);
  HashWorker worker(worker_config(1, 10000));
  scheduler.start_group(1, 10000, 1);
  std::vector<std::vector<TokenId>> choices(static_cast<std::size_t>(request.n));
  absl::Status status = scheduler.add(wish_of(&request));
  while (status.ok() && scheduler.num_running() + scheduler.num_waiting() > 0) {
    StepResult result;
    status = worker.run(scheduler.plan(), &result);
    if (!status.ok()) break;
    auto gains = scheduler.apply(std::move(result));
    status = gains.status();
    if (!gains.ok()) break;
    for (const Gain& gain : *gains) {
      auto& tokens = choices[at(gain.choice)];
      tokens.insert(tokens.end(), gain.tokens.begin(), gain.tokens.end());
    }
  }
  return status.ok() ? choices : std::vector<std::vector<TokenId>>();
}

}  // namespace quire::test
