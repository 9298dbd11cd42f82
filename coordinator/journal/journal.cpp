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

absl::Status unavailable(const std::string& path, absl::string_view why) {
  return absl::AbortedError(absl::StrCat("The journal ", path, " cannot be written (", why,
                                         "), so that a crash would lose the request: it is not "
                                         "accepted. Come again later."));
}

}  // namespace

struct Journal::Acceptance {
  RequestId request = 0;
  std::optional<absl::Status> outcome;
  bool abandoned = false;  // its caller waits no more, and was told no
};

struct Journal::Next {
  JournalBatch batch;
  std::vector<std::shared_ptr<Acceptance>> accepted;  // as in the batch
  absl::Time since = absl::InfiniteFuture();          // when its first delivery came
};

absl::StatusOr<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(JournalWriter writer, JournalWriter::open(options));
  return std::unique_ptr<Journal>(new Journal(std::move(writer), options.path));
}

Journal::Journal(JournalWriter writer, std::string path)
    : path_(std::move(path)), writer_(std::move(writer)), next_(std::make_unique<Next>()) {
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
  auto acceptance = std::make_shared<Acceptance>(Acceptance{request.id, std::nullopt});
  Request copy = request;
  copy.deliver = nullptr;
  std::unique_lock lock(mutex_);
  if (!stats_.writable) return unavailable(path_, "it is tried again every second");
  if (closed_) return unavailable(path_, "the server is stopping");
  next_->batch.accepted.push_back(std::move(copy));
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
  next_->batch.withdrawn.push_back(id);
  news_.notify_all();
}

void Journal::release(std::vector<Delivery> deliveries) {
  std::lock_guard lock(mutex_);
  next_->since = std::min(next_->since, absl::Now());
  std::move(deliveries.begin(), deliveries.end(), std::back_inserter(next_->batch.deliveries));
  news_.notify_all();
}

void Journal::note_epoch(EpochRecord epoch) {
  std::lock_guard lock(mutex_);
  next_->batch.epoch = epoch;
  news_.notify_all();
}

JournalStats Journal::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void Journal::run() {
  while (true) {
    std::unique_ptr<Next> next;
    bool last = false;
    {
      std::unique_lock lock(mutex_);
      news_.wait_for(lock, kRetryEvery, [this] { return closed_ || !next_->batch.empty(); });
      next = std::exchange(next_, std::make_unique<Next>());
      last = closed_;
    }
    serve(std::move(*next));
    if (last) return writer_.close();
  }
}

void Journal::serve(Next next) {
  const bool has_deliveries = !next.batch.deliveries.empty();
  writer_.serve(std::move(next.batch), [&](const absl::Status& written) {
    std::lock_guard lock(mutex_);
    stats_.writable = writer_.writable();
    stats_.errors = writer_.num_errors();
    stats_.bytes = writer_.num_bytes();
    if (has_deliveries) {
      const double lag = absl::ToDoubleSeconds(absl::Now() - next.since);
      stats_.lag_s = stats_.lag_s == 0 ? lag : stats_.lag_s + 0.05 * (lag - stats_.lag_s);
    }
    for (const auto& acceptance : next.accepted) {
      acceptance->outcome = written.ok() ? written : unavailable(path_, written.message());
      if (acceptance->abandoned) next_->batch.withdrawn.push_back(acceptance->request);
    }
    if (!next.accepted.empty()) news_.notify_all();
  });
}

}  // namespace quire
