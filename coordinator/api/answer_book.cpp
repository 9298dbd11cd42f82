#include "coordinator/api/answer_book.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

constexpr std::chrono::milliseconds kLookEvery{250};

}  // namespace

AnswerBook::AnswerBook(Engine* engine, AnswerBookOptions options)
    : engine_(engine), options_(options), thread_([this] { watch(); }) {}

AnswerBook::~AnswerBook() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    news_.notify_all();
  }
  thread_.join();
}

int AnswerBook::restore(std::vector<SavedAnswer> answers) {
  int num_resumed = 0;
  // Of those under one key the newest counts.
  std::sort(answers.begin(), answers.end(), [](const SavedAnswer& a, const SavedAnswer& b) {
    return a.requests.front().request.id < b.requests.front().request.id;
  });
  for (SavedAnswer& saved : answers) {
    const int tenant = saved.requests.front().request.tenant;
    auto answer = std::make_shared<KeptAnswer>(saved.record, tenant);
    for (const SavedRequest& one : saved.requests) answer->add_prompt(one.past);
    {
      std::lock_guard lock(mutex_);
      add(answer);
    }
    std::vector<RequestId> ids;
    for (const SavedRequest& one : saved.requests) ids.push_back(one.request.id);
    for (std::size_t place = 0; place < saved.requests.size(); ++place) {
      SavedRequest& one = saved.requests[place];
      if (one.ended()) continue;
      const RequestId id = one.request.id;
      one.request.deliver = answer->deliver_to(static_cast<int>(place));
      const absl::Status status = engine_->resume(std::move(one));
      if (status.ok()) {
        answer->submitted(static_cast<int>(place), id);
        ++num_resumed;
        continue;
      }
      spdlog::error("request {} of the journal cannot go on: {}", id,
                    std::string(status.message()));
      answer->fail("The request could not be taken up again after a restart of the server.");
      for (const RequestId each : ids) engine_->give_up(each);
      break;
    }
  }
  return num_resumed;
}

absl::StatusOr<AnswerBook::Entry> AnswerBook::open(std::shared_ptr<const AnswerRecord> record,
                                                   int tenant,
                                                   const std::function<void(KeptAnswer&)>& begin) {
  std::lock_guard lock(mutex_);
  if (!record->key.empty()) {
    const auto found = by_key_.find({tenant, record->key});
    if (found != by_key_.end()) {
      const AnswerRecord& other = found->second->record();
      if (other.endpoint == record->endpoint && other.body == record->body) {
        return Entry{found->second, false};
      }
      return absl::AlreadyExistsError(
          "The `Idempotency-Key` was sent before, with another request; use a new key.");
    }
  }
  auto answer = std::make_shared<KeptAnswer>(std::move(record), tenant);
  begin(*answer);
  add(answer);
  return Entry{answer, true};
}

void AnswerBook::add(const std::shared_ptr<KeptAnswer>& answer) {
  by_name_[{answer->tenant(), answer->record().name}] = answer;
  if (!answer->record().key.empty()) by_key_[{answer->tenant(), answer->record().key}] = answer;
}

void AnswerBook::remove(const KeptAnswer& answer) {
  std::lock_guard lock(mutex_);
  remove_locked(answer);
}

void AnswerBook::remove_locked(const KeptAnswer& answer) {
  const auto erase = [&answer](std::map<Name, std::shared_ptr<KeptAnswer>>& from,
                               const std::string& name) {
    const auto found = from.find({answer.tenant(), name});
    if (found != from.end() && found->second.get() == &answer) from.erase(found);
  };
  const std::string key = answer.record().key, name = answer.record().name;
  erase(by_key_, key);
  erase(by_name_, name);  // `answer` may be dead now
}

std::shared_ptr<KeptAnswer> AnswerBook::find(int tenant, const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto found = by_name_.find({tenant, name});
  return found == by_name_.end() ? nullptr : found->second;
}

std::shared_ptr<KeptAnswer> AnswerBook::find_by_key(int tenant, const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto found = by_key_.find({tenant, key});
  return found == by_key_.end() ? nullptr : found->second;
}

void AnswerBook::watch() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    news_.wait_for(lock, kLookEvery, [this] { return closed_; });
    if (!closed_) tidy(steady_now());
  }
}

void AnswerBook::tidy(absl::Time now) {
  std::vector<std::shared_ptr<KeptAnswer>> ended, abandoned;
  std::size_t bytes = 0;
  for (const auto& [name, answer] : by_name_) {
    bytes += answer->num_bytes();
    if (answer->ended()) {
      ended.push_back(answer);
    } else if (now - answer->left_at() > options_.grace) {
      abandoned.push_back(answer);
    }
  }
  for (const auto& answer : abandoned) {
    for (const RequestId id : answer->requests()) engine_->cancel(id);
    remove_locked(*answer);  // whoever comes with its key now begins anew
  }
  std::sort(ended.begin(), ended.end(),
            [](const auto& a, const auto& b) { return a->ended_at() < b->ended_at(); });
  for (const auto& answer : ended) {
    if (bytes <= options_.max_bytes && now - answer->ended_at() <= options_.keep) break;
    bytes -= answer->num_bytes();
    remove_locked(*answer);
  }
}

}  // namespace quire
