// What is between a client and the loop: calls, and the answers that are kept of them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/simulation/virtual_coordinator.h"

namespace quire::test {
namespace {

constexpr absl::Duration kVerdictPatience = absl::Milliseconds(200);
constexpr absl::Duration kGrace = absl::Seconds(30);

}  // namespace

std::uint64_t VirtualCoordinator::call(Call call, Connection connection) {
  const std::uint64_t id = ++last_caller_;
  const auto found = call.name.empty() ? answers_.end() : answers_.find(call.name);
  callers_[id] = {connection, call.name, nullptr, 0, std::move(call.had)};
  if (found != answers_.end()) {
    if (!found->second.is_accepted) {
      connection.refused(absl::UnavailableError("the same call is being accepted"));
      return id;
    }
    callers_.at(id).answer = found->second.answer;
    found->second.connections.insert(id);
    connection.accepted();
    attach(id);
    return id;
  }
  if (call.was_accepted) {
    connection.unknown();
    return id;
  }
  if (is_draining_) {
    connection.refused(absl::UnavailableError("the server is stopping"));
    return id;
  }
  auto record = std::make_shared<AnswerRecord>();
  record->key = call.name;  // the name is another for each attempt
  record->name = absl::StrCat(call.name, "#", absl::ToUnixNanos(time_.now()));
  record->endpoint = "/v1/completions";
  record->body = "{}";
  const int tenant = call.requests.front().tenant;
  record->tenant = world_.tenants[static_cast<std::size_t>(tenant)].name;
  record->num_prompts = static_cast<int>(call.requests.size());
  const auto answer = std::make_shared<KeptAnswer>(record, tenant);
  for (std::size_t place = 0; place < call.requests.size(); ++place) {
    Request& request = call.requests[place];
    answer->add_prompt(request.n);
    if (!call.name.empty()) request.answer = record;
    request.place = static_cast<int>(place);
    request.deliver = answer->deliver_to(request.place);
  }
  callers_.at(id).answer = answer;
  if (!call.name.empty()) answers_[call.name] = {answer, {id}, time_.now(), false};
  submit_next(std::make_shared<Submission>(
      Submission{id, call.name, answer, std::move(call.requests), {}}));
  return id;
}

// One prompt after the other; the client hears of all or of none.
void VirtualCoordinator::submit_next(const std::shared_ptr<Submission>& of) {
  const std::size_t place = of->ids.size();
  if (place == of->requests.size()) return accepted(*of);
  absl::StatusOr<Intake::Entered> entered =
      intake_.enter(std::move(of->requests[place]), loop_.stats());
  if (!entered.ok()) return give_up(*of, entered.status());
  if (of->name.empty()) return hand_over({*std::move(entered), of});
  if (!writer_.writable()) {
    intake_.turn_away(std::ssize(entered->request.prompt));
    return give_up(*of, absl::AbortedError("the journal cannot be written"));
  }
  batch_.journal.accepted.push_back(entered->request);
  batch_.journal.accepted.back().deliver = nullptr;
  batch_.accepted.push_back({*std::move(entered), of});
  wake_journal();
}

void VirtualCoordinator::hand_over(Acceptance acceptance) {
  Intake::Entered& entered = acceptance.entered;
  const RequestId id = entered.request.id;
  const std::int64_t prompt_tokens = std::ssize(entered.request.prompt);
  const auto taken = [this, id](const std::shared_ptr<Submission>& of) {
    of->answer->submitted(static_cast<int>(of->ids.size()), id);
    of->ids.push_back(id);
    submit_next(of);
  };
  if (!entered.is_doubtful) {
    post(std::move(entered.request));
    return taken(acceptance.of);
  }
  auto verdict = std::make_shared<Verdict>();
  post(DoubtfulRequest{std::move(entered.request), entered.speeds, verdict});
  later(kVerdictPatience, [this, verdict, id, prompt_tokens, taken, of = acceptance.of] {
    const absl::Status answer = verdict->wait(absl::ZeroDuration());
    if (answer.ok()) return taken(of);
    intake_.turn_away(prompt_tokens);
    if (!of->name.empty()) {
      batch_.journal.withdrawn.push_back(id);
      wake_journal();
    }
    give_up(*of, answer);
  });
}

void VirtualCoordinator::accepted(const Submission& of) {
  const auto kept = answers_.find(of.name);
  const bool is_kept = kept != answers_.end() && kept->second.answer == of.answer;
  if (is_kept) kept->second.is_accepted = true;
  const auto caller = callers_.find(of.caller);
  if (caller == callers_.end()) {  // it has hung up
    if (is_kept) return;
    for (const RequestId id : of.ids) post(CancelRequest{id});
    return;
  }
  caller->second.connection.accepted();
  attach(of.caller);
}

void VirtualCoordinator::give_up(const Submission& of, const absl::Status& why) {
  for (const RequestId id : of.ids) post(CancelRequest{id});
  const auto kept = answers_.find(of.name);
  if (kept != answers_.end() && kept->second.answer == of.answer) answers_.erase(kept);
  const auto caller = callers_.find(of.caller);
  if (caller != callers_.end()) caller->second.connection.refused(why);
}

// From here on the client hears what its answer has beyond what it had.
void VirtualCoordinator::attach(std::uint64_t id) {
  Caller& caller = callers_.at(id);
  const std::vector<int> shape = caller.answer->shape();
  std::vector<std::size_t> first;  // [place] of its choices
  std::size_t num_choices = 0;
  for (const int n : shape) {
    first.push_back(num_choices);
    num_choices += static_cast<std::size_t>(n);
  }
  for (std::size_t i = 0; i < num_choices; ++i) {
    const int had = caller.had[i].num_tokens;
    if (caller.answer->covers(static_cast<int>(i), had, world_.base.config.max_model_len)) continue;
    parts_.events.broken(absl::InternalError(
        absl::StrCat("call ", caller.name, " cannot go on from ", had, " tokens of choice ", i)));
  }
  auto left = std::make_shared<std::vector<EventId::Choice>>(caller.had);
  caller.listener = caller.answer->listen(
      [this, left, first, delta = caller.connection.delta](int place, OutputDelta what) {
        if (!may_deliver()) return;
        const std::size_t choice =
            first[static_cast<std::size_t>(place)] + static_cast<std::size_t>(what.choice);
        take_had(&(*left)[choice], &what);
        if (!what.tokens.empty() || what.finish != FinishReason::kNone) {
          delta(place, std::move(what));
        }
      });
}

void VirtualCoordinator::hang_up(std::uint64_t id) {
  const auto found = callers_.find(id);
  if (found == callers_.end()) return;
  const Caller gone = std::move(found->second);
  callers_.erase(found);
  if (gone.listener != 0) gone.answer->leave(gone.listener);
  if (gone.name.empty()) {
    if (gone.answer == nullptr) return;
    for (const RequestId request : gone.answer->requests()) post(CancelRequest{request});
    return;
  }
  const auto kept = answers_.find(gone.name);
  if (kept == answers_.end() || kept->second.connections.erase(id) == 0) return;
  kept->second.left = time_.now();
}

void VirtualCoordinator::cancel(const std::string& name) {
  const auto kept = answers_.find(name);
  if (kept == answers_.end()) return;
  for (const RequestId id : kept->second.answer->requests()) post(CancelRequest{id});
  answers_.erase(kept);
}

void VirtualCoordinator::stop_choice(const std::string& name, int place, int choice) {
  const auto kept = answers_.find(name);
  if (kept == answers_.end()) return;
  const RequestId id = kept->second.answer->stop(place, choice);
  intake_.choice_ended(id, choice);
  post(StopChoice{id, choice});
}

// Nobody has come back for them.
void VirtualCoordinator::leave_abandoned() {
  std::vector<std::string> abandoned;
  for (const auto& [name, kept] : answers_) {
    if (kept.is_accepted && kept.connections.empty() && !kept.answer->ended() &&
        time_.now() - kept.left > kGrace) {
      abandoned.push_back(name);
    }
  }
  for (const std::string& name : abandoned) cancel(name);
}

void VirtualCoordinator::take_up(std::vector<SavedAnswer> saved) {
  parts_.events.began(saved, writer_.problems());
  // Of those under one key the newest counts.
  std::sort(saved.begin(), saved.end(), [](const SavedAnswer& a, const SavedAnswer& b) {
    return a.requests.front().request.id < b.requests.front().request.id;
  });
  for (SavedAnswer& answer : saved) {
    const auto taken =
        std::make_shared<KeptAnswer>(answer.record, answer.requests.front().request.tenant);
    answers_[answer.record->key] = {taken, {}, time_.now(), true};
    std::vector<RequestId> ids;
    for (const SavedRequest& one : answer.requests) {
      taken->add_prompt(one.past);
      ids.push_back(one.request.id);
    }
    for (std::size_t place = 0; place < answer.requests.size(); ++place) {
      SavedRequest& one = answer.requests[place];
      if (one.ended()) continue;
      one.request.deliver = taken->deliver_to(static_cast<int>(place));
      absl::StatusOr<ResumedRequest> resumed = intake_.resume(std::move(one));
      if (resumed.ok()) {
        taken->submitted(static_cast<int>(place), ids[place]);
        post(*std::move(resumed));
        continue;
      }
      taken->fail("The request could not be taken up again.");
      for (const RequestId id : ids) {
        batch_.journal.withdrawn.push_back(id);
        post(CancelRequest{id});
      }
      wake_journal();
      break;
    }
  }
}

}  // namespace quire::test
