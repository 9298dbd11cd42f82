#include "coordinator/journal/journal.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

constexpr std::chrono::seconds kRetryEvery{1};
constexpr std::chrono::seconds kAcceptWithin{10};
constexpr absl::Duration kTidyEvery = absl::Seconds(30);
constexpr int kTurnsPerCheckpoint = 512;
constexpr int kTurnsPerLook = 16;  // at the log's size
constexpr std::int64_t kMostLogBytes = 32 << 20;

absl::Status unavailable(const std::string& path, absl::string_view why) {
  return absl::AbortedError(absl::StrCat("The journal ", path, " cannot be written (", why,
                                         "), so that a crash would lose the request: it is not "
                                         "accepted. Come again later."));
}

bool ends_without_trace(const OutputDelta& choice) {
  return choice.finish == FinishReason::kCancelled;
}

}  // namespace

struct Journal::Acceptance {
  Request request;  // without `deliver`
  std::optional<absl::Status> outcome;
  bool abandoned = false;  // its caller waits no more, and was told no
};

struct Journal::Batch {
  std::vector<std::shared_ptr<Acceptance>> accepted;
  std::vector<Delivery> deliveries;
  std::vector<RequestId> withdrawn;
  std::optional<EpochId> epoch;
  absl::Time since = absl::InfiniteFuture();  // when its first delivery came

  bool empty() const {
    return accepted.empty() && deliveries.empty() && withdrawn.empty() && !epoch.has_value();
  }
};

absl::StatusOr<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(JournalFile file, JournalFile::open(options));
  QUIRE_ASSIGN_OR_RETURN(JournalFile::Contents contents, file.load());
  return std::unique_ptr<Journal>(new Journal(std::move(file), options, std::move(contents)));
}

Journal::Journal(JournalFile file, const JournalOptions& options, JournalFile::Contents contents)
    : path_(options.path),
      keep_(options.keep),
      contents_(std::move(contents)),
      file_(std::move(file)),
      next_(std::make_unique<Batch>()) {
  for (const SavedAnswer& answer : contents_.answers) {
    for (const SavedRequest& saved : answer.requests) {
      if (saved.ended()) continue;
      Live& live = live_[saved.request.id];
      live.past = saved.past;
      for (const OutputDelta& choice : saved.past) {
        live.num_open += choice.finish == FinishReason::kNone ? 1 : 0;
      }
    }
  }
  thread_ = std::thread([this] { run(); });
}

Journal::~Journal() {
  close();
}

void Journal::close() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    news_.notify_all();
  }
  thread_.join();
}

absl::Status Journal::accept(const Request& request) {
  auto acceptance = std::make_shared<Acceptance>(Acceptance{request, std::nullopt});
  acceptance->request.deliver = nullptr;
  std::unique_lock lock(mutex_);
  if (!stats_.writable) return unavailable(path_, "it is tried again every second");
  if (closed_) return unavailable(path_, "the server is stopping");
  next_->accepted.push_back(acceptance);
  news_.notify_all();
  const bool answered =
      news_.wait_for(lock, kAcceptWithin, [&] { return acceptance->outcome.has_value(); });
  if (answered) return *acceptance->outcome;
  acceptance->abandoned = true;
  return unavailable(path_, "it does not answer");
}

void Journal::withdraw(RequestId id) {
  std::lock_guard lock(mutex_);
  next_->withdrawn.push_back(id);
  news_.notify_all();
}

void Journal::release(std::vector<Delivery> deliveries) {
  std::lock_guard lock(mutex_);
  next_->since = std::min(next_->since, absl::Now());
  std::move(deliveries.begin(), deliveries.end(), std::back_inserter(next_->deliveries));
  news_.notify_all();
}

void Journal::note_epoch(EpochId epoch) {
  std::lock_guard lock(mutex_);
  next_->epoch = epoch;
  news_.notify_all();
}

JournalStats Journal::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void Journal::run() {
  while (true) {
    std::unique_ptr<Batch> batch;
    bool last = false;
    {
      std::unique_lock lock(mutex_);
      news_.wait_for(lock, kRetryEvery, [this] { return closed_ || !next_->empty(); });
      batch = std::exchange(next_, std::make_unique<Batch>());
      last = closed_;
    }
    serve(std::move(*batch));
    if (last) {
      file_.forgive().IgnoreError();
      return;
    }
  }
}

void Journal::serve(Batch batch) {
  bool writable = false;
  {
    std::lock_guard lock(mutex_);
    writable = stats_.writable;
  }
  absl::Status written = writable ? absl::OkStatus() : try_again();
  if (written.ok() && !batch.empty()) {
    written = write(batch);
    if (!written.ok()) fail(written);
  }
  const absl::Time now = absl::Now();
  {
    std::lock_guard lock(mutex_);
    if (written.ok() != stats_.writable) {
      stats_.writable = written.ok();
      if (written.ok()) spdlog::info("the journal {} can be written again", path_);
    }
    if (!batch.deliveries.empty()) {
      const double lag = absl::ToDoubleSeconds(now - batch.since);
      stats_.lag_s = stats_.lag_s == 0 ? lag : stats_.lag_s + 0.05 * (lag - stats_.lag_s);
    }
    for (const auto& acceptance : batch.accepted) {
      acceptance->outcome = written.ok() ? written : unavailable(path_, written.message());
      if (acceptance->abandoned) next_->withdrawn.push_back(acceptance->request.id);
    }
    if (!batch.accepted.empty()) news_.notify_all();
  }
  for (Delivery& delivery : batch.deliveries) {
    if (delivery.to != nullptr) (*delivery.to)(std::move(delivery.delta));
  }
  if (written.ok()) tidy(now);
}

absl::Status Journal::write(const Batch& batch) {
  QUIRE_RETURN_IF_ERROR(file_.begin());
  for (const auto& acceptance : batch.accepted) {
    const Request& request = acceptance->request;
    if (request.place == 0) QUIRE_RETURN_IF_ERROR(file_.add(*request.answer));
    QUIRE_RETURN_IF_ERROR(file_.add(request));
    Live& live = live_[request.id];
    live.past = nothing_yet(request.id, request.n);
    live.num_open = request.n;
    live.first_step = file_.last_step() + 1;
  }
  QUIRE_RETURN_IF_ERROR(write_deliveries(batch.deliveries));
  for (const RequestId id : batch.withdrawn) {
    gone_.push_back(id);
    QUIRE_RETURN_IF_ERROR(file_.remove(id));
  }
  if (batch.epoch.has_value()) QUIRE_RETURN_IF_ERROR(file_.note_epoch(*batch.epoch));
  QUIRE_RETURN_IF_ERROR(file_.commit());
  for (const RequestId id : gone_) live_.erase(id);
  gone_.clear();
  return absl::OkStatus();
}

absl::Status Journal::write_deliveries(const std::vector<Delivery>& deliveries) {
  std::vector<OutputDelta> step;
  std::vector<RequestId> ended;
  for (const Delivery& delivery : deliveries) {
    const OutputDelta& delta = delivery.delta;
    const auto found = live_.find(delta.request);
    if (!delivery.is_written || found == live_.end()) continue;
    Live& live = found->second;
    OutputDelta& past = live.past[static_cast<std::size_t>(delta.choice)];
    if (past.finish != FinishReason::kNone) continue;
    past.append(delta);
    step.push_back(delta);
    if (delta.finish != FinishReason::kNone && --live.num_open == 0) ended.push_back(delta.request);
  }
  if (!step.empty()) QUIRE_RETURN_IF_ERROR(file_.add_step(step));
  for (const RequestId id : ended) {
    QUIRE_RETURN_IF_ERROR(write_end(id, live_.at(id)));
    gone_.push_back(id);
  }
  return absl::OkStatus();
}

// What was cancelled is asked for by nobody.
absl::Status Journal::write_end(RequestId id, const Live& live) {
  if (std::any_of(live.past.begin(), live.past.end(), ends_without_trace)) return file_.remove(id);
  return file_.end(id, live.past, absl::Now());
}

std::int64_t Journal::oldest_step_needed() const {
  std::int64_t oldest = file_.last_step() + 1;
  for (const auto& [id, live] : live_) oldest = std::min(oldest, live.first_step);
  return oldest;
}

void Journal::fail(const absl::Status& status) {
  file_.rollback();
  spdlog::error(
      "the journal {} cannot be written: {}. Requests that run go on, but would not survive a "
      "crash "
      "of the coordinator; new ones are refused until it can be written again.",
      path_, std::string(status.message()));
  for (const auto& [id, live] : live_) orphans_.push_back(id);
  live_.clear();
  gone_.clear();
  forgotten_before_ = 0;
  std::lock_guard lock(mutex_);
  ++stats_.errors;
}

absl::Status Journal::try_again() {
  absl::Status status = file_.begin();
  for (const RequestId id : orphans_) {
    if (status.ok()) status = file_.remove(id);
  }
  if (status.ok()) status = file_.forget_steps_before(file_.last_step() + 1);  // nobody's
  if (status.ok()) status = file_.commit();
  if (!status.ok()) {
    file_.rollback();
    return status;
  }
  orphans_.clear();
  status = file_.probe();
  if (!absl::IsResourceExhausted(status)) return status;
  // What has ended makes room for what begins.
  QUIRE_RETURN_IF_ERROR(file_.forget_ended_before(absl::InfiniteFuture()));
  return file_.probe();
}

// Off the path of commits: nobody waits for what happens here.
void Journal::tidy(absl::Time now) {
  if (const std::int64_t oldest = oldest_step_needed(); oldest > forgotten_before_) {
    if (file_.forget_steps_before(oldest).ok()) forgotten_before_ = oldest;
  }
  ++turns_;
  if (turns_ % kTurnsPerCheckpoint == 0 ||
      (turns_ % kTurnsPerLook == 0 && file_.log_bytes() > kMostLogBytes)) {
    file_.checkpoint();
  }
  if (now < tidy_due_) return;
  tidy_due_ = now + kTidyEvery;
  const absl::Status status = file_.forget_ended_before(now - keep_);
  if (!status.ok()) spdlog::warn("the journal {}: {}", path_, std::string(status.message()));
  const std::int64_t bytes = file_.size_bytes();
  std::lock_guard lock(mutex_);
  stats_.bytes = bytes;
}

}  // namespace quire
