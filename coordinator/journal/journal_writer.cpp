#include "coordinator/journal/journal_writer.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

constexpr absl::Duration kTidyEvery = absl::Seconds(30);
constexpr int kTurnsPerCheckpoint = 512;
constexpr int kTurnsPerLook = 16;  // at the log's size
constexpr std::int64_t kMostLogBytes = 32 << 20;

bool ends_without_trace(const OutputDelta& choice) {
  return choice.finish == FinishReason::kCancelled;
}

}  // namespace

absl::StatusOr<JournalWriter> JournalWriter::open(const JournalOptions& options, Clock clock) {
  QUIRE_ASSIGN_OR_RETURN(JournalFile file, JournalFile::open(options));
  QUIRE_ASSIGN_OR_RETURN(JournalFile::Contents contents, file.load(clock()));
  return JournalWriter(std::move(file), options, std::move(contents), std::move(clock));
}

JournalWriter::JournalWriter(JournalFile file, const JournalOptions& options,
                             JournalFile::Contents contents, Clock clock)
    : path_(options.path),
      keep_(options.keep),
      clock_(std::move(clock)),
      contents_(std::move(contents)),
      file_(std::move(file)) {
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
}

void JournalWriter::serve(JournalBatch batch,
                          const std::function<void(const absl::Status&)>& settle) {
  const absl::Status written = write(batch);
  settle(written);
  for (Delivery& delivery : batch.deliveries) {
    if (delivery.to != nullptr) (*delivery.to)(std::move(delivery.delta));
  }
  if (written.ok()) tidy();
}

absl::Status JournalWriter::write(const JournalBatch& batch) {
  absl::Status written = writable_ ? absl::OkStatus() : try_again();
  if (written.ok() && !batch.empty()) {
    written = commit(batch);
    if (!written.ok()) fail(written);
  }
  if (written.ok() && !writable_) spdlog::info("the journal {} can be written again", path_);
  writable_ = written.ok();
  return written;
}

absl::Status JournalWriter::commit(const JournalBatch& batch) {
  QUIRE_RETURN_IF_ERROR(file_.begin());
  for (const Request& request : batch.accepted) {
    if (request.place == 0) QUIRE_RETURN_IF_ERROR(file_.add(*request.answer));
    QUIRE_RETURN_IF_ERROR(file_.add(request));
    Live& live = live_[request.id];
    live.past = nothing_yet(request.id, request.n);
    live.num_open = request.n;
    live.first_step = file_.last_step() + 1;
  }
  QUIRE_RETURN_IF_ERROR(add_deliveries(batch.deliveries));
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

absl::Status JournalWriter::add_deliveries(const std::vector<Delivery>& deliveries) {
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
    QUIRE_RETURN_IF_ERROR(add_end(id, live_.at(id)));
    gone_.push_back(id);
  }
  return absl::OkStatus();
}

// What was cancelled is asked for by nobody.
absl::Status JournalWriter::add_end(RequestId id, const Live& live) {
  if (std::any_of(live.past.begin(), live.past.end(), ends_without_trace)) return file_.remove(id);
  return file_.end(id, live.past, clock_());
}

std::int64_t JournalWriter::oldest_step_needed() const {
  std::int64_t oldest = file_.last_step() + 1;
  for (const auto& [id, live] : live_) oldest = std::min(oldest, live.first_step);
  return oldest;
}

void JournalWriter::fail(const absl::Status& status) {
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
  ++num_errors_;
}

absl::Status JournalWriter::try_again() {
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
void JournalWriter::tidy() {
  if (const std::int64_t oldest = oldest_step_needed(); oldest > forgotten_before_) {
    if (file_.forget_steps_before(oldest).ok()) forgotten_before_ = oldest;
  }
  ++turns_;
  if (turns_ % kTurnsPerCheckpoint == 0 ||
      (turns_ % kTurnsPerLook == 0 && file_.log_bytes() > kMostLogBytes)) {
    file_.checkpoint();
  }
  const absl::Time now = clock_();
  if (now < tidy_due_) return;
  tidy_due_ = now + kTidyEvery;
  const absl::Status status = file_.forget_ended_before(now - keep_);
  if (!status.ok()) spdlog::warn("the journal {}: {}", path_, std::string(status.message()));
  num_bytes_ = file_.size_bytes();
}

}  // namespace quire
