#include "tests/simulation/coordinator_simulation.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "spdlog/spdlog.h"

namespace quire::test {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kStartAfter = absl::Seconds(1);  // about
constexpr absl::Duration kDrainFor = absl::Seconds(1);    // about
// Beside the work itself: a group that hangs in its first steps is noticed after five minutes, in
// later ones after one; suspects run alone, one by one.
constexpr absl::Duration kPatience = absl::Minutes(30);

}  // namespace

void CoordinatorCounts::add(const CoordinatorCounts& more) {
  const auto add_all = [](auto* to, const auto& from, auto... members) {
    ((to->*members += from.*members), ...);
  };
  add_all(&clients, more.clients, &ClientCounts::calls, &ClientCounts::accepted,
          &ClientCounts::finished, &ClientCounts::refused, &ClientCounts::cancelled,
          &ClientCounts::stopped, &ClientCounts::expired, &ClientCounts::quarantined,
          &ClientCounts::too_large, &ClientCounts::gone, &ClientCounts::resumed,
          &ClientCounts::tokens, &ClientCounts::behind, &ClientCounts::unpromised);
  for (std::size_t i = 0; i < faults.size(); ++i) faults[i] += more.faults[i];
  add_all(this, more, &CoordinatorCounts::lives, &CoordinatorCounts::epochs,
          &CoordinatorCounts::steps, &CoordinatorCounts::group_losses,
          &CoordinatorCounts::stale_dropped, &CoordinatorCounts::journal_failures,
          &CoordinatorCounts::failed_starts, &CoordinatorCounts::recovered,
          &CoordinatorCounts::preemptions);
}

std::string CoordinatorCounts::text() const {
  std::vector<std::string> happened;
  for (int i = 0; i < kNumFaults; ++i) {
    happened.push_back(
        absl::StrCat(faults[static_cast<std::size_t>(i)], " ", name_of(static_cast<Fault>(i))));
  }
  return absl::StrCat(
      clients.calls, " calls, ", clients.accepted, " accepted, ", clients.finished, " finished, ",
      clients.resumed, " connections resumed, ", clients.expired, " expired, ", clients.cancelled,
      " cancelled, ", clients.stopped, " stopped choices, ", clients.refused, " refused, ",
      clients.too_large, " too large, ", clients.quarantined, " quarantined, ", clients.gone,
      " gone, ", clients.behind, " choices ahead of the file, ", clients.unpromised,
      " lost with a spoilt file; ", lives, " lives, ", epochs, " epochs, ", steps, " steps, ",
      clients.tokens, " tokens, ", group_losses, " group losses, ", recovered, " recovered, ",
      preemptions, " preemptions, ", stale_dropped, " stale messages, ", journal_failures,
      " failed commits, ", failed_starts, " failed starts; ", absl::StrJoin(happened, ", "));
}

CoordinatorSimulation::CoordinatorSimulation(std::uint64_t seed, const std::string& folder)
    : world_(seed),
      network_(&world_, &time_),
      ranks_(&world_, &time_, &network_, [this](absl::Status status) { broken(status); }),
      clients_(
          &world_, &time_, [this] { return coordinator(); },
          [this](absl::Status status) { broken(status); }) {
  journal_.path = absl::StrCat(folder, "/journal-", seed);
  journal_.max_bytes = world_.journal_bytes;
  journal_.keep = world_.journal_keep;
  for (const Tenant& tenant : world_.tenants) journal_.tenants.push_back(tenant.name);
}

CoordinatorSimulation::~CoordinatorSimulation() {
  coordinator_ = nullptr;
  const fs::path path = journal_.path;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path.parent_path(), ignored)) {
    if (entry.path().filename().string().rfind(path.filename().string(), 0) == 0) {
      fs::remove(entry.path(), ignored);
    }
  }
}

VirtualCoordinator* CoordinatorSimulation::coordinator() const {
  return coordinator_ == nullptr || coordinator_->is_dying() ? nullptr : coordinator_.get();
}

void CoordinatorSimulation::broken(const absl::Status& status) {
  if (!first_wrong_.ok()) return;
  first_wrong_ = absl::Status(
      status.code(),
      absl::StrCat(status.message(), " (", absl::FormatDuration(time_.now() - VirtualTime::start()),
                   " after the start, life ", counts_.lives, ")"));
}

// For replays.
void CoordinatorSimulation::tell(const std::string& what) const {
  spdlog::info("{}: {}", absl::FormatDuration(time_.now() - VirtualTime::start()), what);
}

void CoordinatorSimulation::note(std::uint64_t what) {
  counts_.digest = mix(counts_.digest ^ what);
}

CoordinatorEvents CoordinatorSimulation::events() {
  return {
      .broken = [this](absl::Status status) { broken(status); },
      .died =
          [this] {
            tell("the coordinator dies in the middle of something");
            time_.after(absl::ZeroDuration(), [this] { crash(); });
          },
      .began =
          [this](const std::vector<SavedAnswer>& saved, const std::vector<std::string>& problems) {
            tell(absl::StrCat("life ", counts_.lives, " finds ", saved.size(), " answers"));
            for (const std::string& problem : problems) tell(problem);
            clients_.check_saved(saved);
          },
      .issued =
          [this](EpochId epoch) {
            if (epoch <= floor_) {
              broken(absl::InternalError(absl::StrCat("epoch ", epoch, " comes after ", floor_)));
            }
            floor_ = epoch;
            ++counts_.epochs;
          },
      .noted = [this](EpochId epoch) { noted_ = epoch; },
      .ended =
          [this](const std::string& instance) {
            ranks_.on_ended(instance);
            clients_.on_group_lost();
          },
      .journal_failed =
          [this] {
            ++counts_.journal_failures;
            clients_.lose_protection();
          }};
}

void CoordinatorSimulation::start_coordinator() {
  floor_ = noted_;
  ++counts_.lives;
  clients_.begin_life();
  disk_.begin_life();
  // It may die while it reads and mends its file, too.
  const bool dies = is_faulty_ && world_.has(Fault::kCrashInWrite) && world_.chance(0.2);
  if (dies) disk_.die_after(world_.pick(0, 20000));
  auto started = VirtualCoordinator::start({.world = &world_,
                                            .time = &time_,
                                            .network = &network_,
                                            .disk = &disk_,
                                            .journal = journal_,
                                            .events = events()});
  if (started.ok()) {
    coordinator_ = *std::move(started);
    return;
  }
  // Only for want of a disk, or of life: it is tried again.
  if (!disk_.failing() && !disk_.dead()) broken(started.status());
  ++counts_.failed_starts;
  time_.after(world_.about(kStartAfter), [this] { start_coordinator(); });
}

void CoordinatorSimulation::end_life() {
  const EngineStats stats = coordinator_->stats();
  counts_.group_losses += static_cast<std::int64_t>(stats.group_losses);
  counts_.recovered += static_cast<std::int64_t>(stats.requests_recovered);
  counts_.preemptions += static_cast<std::int64_t>(stats.preemptions);
  counts_.stale_dropped += static_cast<std::int64_t>(coordinator_->stale_dropped());
  note(stats.generation_tokens);
  note(stats.steps);
  disk_.die();
  coordinator_ = nullptr;
  clients_.on_coordinator_gone();
}

void CoordinatorSimulation::crash() {
  if (coordinator_ == nullptr) return;
  end_life();
  time_.after(world_.about(kStartAfter), [this] { start_coordinator(); });
}

// Clients are given a little time to get the rest.
void CoordinatorSimulation::restart() {
  const std::int64_t life = counts_.lives;
  coordinator_->drain([this, life] {
    time_.after(absl::ZeroDuration(), [this, life] {
      if (coordinator() != nullptr && counts_.lives == life &&
          coordinator_->stats().unfinished != 0) {
        broken(absl::InternalError("said to be idle with unfinished requests"));
      }
      stop(life);
    });
  });
  time_.after(world_.about(kDrainFor), [this, life] { stop(life); });
}

void CoordinatorSimulation::stop(std::int64_t life) {
  if (coordinator() == nullptr || counts_.lives != life || !coordinator_->stop()) return;
  end_life();
  time_.after(world_.about(kStartAfter), [this] { start_coordinator(); });
}

bool CoordinatorSimulation::spoil(Fault fault) {
  crash();
  const std::uint64_t random = world_.any();
  if (fault == Fault::kFlipRow) {
    const std::optional<FaultyDisk::Flipped> flipped = disk_.flip_in_row(journal_.path, random);
    if (!flipped.has_value()) return false;
    clients_.lose_row(*flipped);
    return true;
  }
  const bool spoilt = fault == Fault::kCutLog ? FaultyDisk::cut_log(journal_.path, random)
                                              : FaultyDisk::flip_in_file(journal_.path, random);
  if (!spoilt) return false;
  noted_ = 0;
  clients_.lose_protection();
  return true;
}

void CoordinatorSimulation::arrive() {
  if (!is_faulty_) return;
  clients_.arrive();
  // Now and then many at once.
  const absl::Duration pause =
      world_.chance(0.3) ? absl::ZeroDuration() : world_.about(world_.arrival_every);
  time_.after(pause, [this] { arrive(); });
}

void CoordinatorSimulation::arm(Fault fault) {
  const absl::Duration every = world_.fault_every[static_cast<std::size_t>(fault)];
  if (every == absl::InfiniteDuration()) return;
  time_.after(world_.about(every), [this, fault] {
    if (!is_faulty_) return;
    if (suffer(fault)) {
      ++counts_.faults[static_cast<std::size_t>(fault)];
      note(static_cast<std::uint64_t>(fault));
      tell(name_of(fault));
    }
    arm(fault);
  });
}

bool CoordinatorSimulation::suffer(Fault fault) {
  switch (fault) {
    case Fault::kBreakClient:
      return clients_.break_one();
    case Fault::kCutLink:
    case Fault::kRepeat: {
      const std::vector<LinkId> links = network_.open_links();
      if (links.empty()) return false;
      const LinkId link =
          links[static_cast<std::size_t>(world_.pick(0, static_cast<int>(links.size()) - 1))];
      fault == Fault::kCutLink ? network_.cut(link) : network_.repeat(link);
      return true;
    }
    case Fault::kFailDisk:
      disk_.fail_with(world_.chance(0.5) ? SQLITE_FULL : SQLITE_IOERR_WRITE);
      time_.after(world_.about(absl::Seconds(3)), [this] { disk_.fail_with(SQLITE_OK); });
      return true;
    default:
      break;
  }
  if (static_cast<int>(fault) < static_cast<int>(Fault::kCutLink)) return ranks_.suffer(fault);
  if (coordinator() == nullptr) return false;
  switch (fault) {
    case Fault::kCrash:
      crash();
      return true;
    case Fault::kCrashInWrite:
      disk_.die_after(world_.pick(0, 30000));
      return true;
    case Fault::kCrashInTurn:
      coordinator_->die_in_turn();
      return true;
    case Fault::kPause:
      return coordinator_->pause(world_.between(absl::Milliseconds(100), absl::Seconds(12)));
    case Fault::kRestart:
      restart();
      return true;
    default:
      return spoil(fault);
  }
}

void CoordinatorSimulation::check_time() {
  if (time_.stands_still()) broken(absl::InternalError("something happens for ever, without time"));
}

void CoordinatorSimulation::heal() {
  is_faulty_ = false;
  disk_.fail_with(SQLITE_OK);
}

absl::Status CoordinatorSimulation::run() {
  start_coordinator();
  ranks_.start();
  arrive();
  for (int i = 0; i < kNumFaults; ++i) arm(static_cast<Fault>(i));
  const absl::Time faulty_until = time_.now() + world_.faulty_for;
  while (first_wrong_.ok() && time_.step(faulty_until)) check_time();
  if (first_wrong_.ok() && world_.is_live) {
    heal();
    first_wrong_ = check_end();
  }
  if (coordinator_ != nullptr) end_life();
  counts_.clients = clients_.counts();
  counts_.steps = ranks_.num_steps();
  note(static_cast<std::uint64_t>(counts_.clients.tokens));
  return first_wrong_;
}

// Every client has what it was promised; and when nobody is there any more, nothing is held.
absl::Status CoordinatorSimulation::check_end() {
  QUIRE_RETURN_IF_ERROR(await([this] { return clients_.num_unfinished() == 0; }));
  return await([this] {
    if (coordinator() == nullptr) return false;
    const EngineStats stats = coordinator()->stats();
    return stats.ready && stats.unfinished == 0 && stats.running == 0 && stats.waiting == 0 &&
           stats.used_blocks == 0;
  });
}

absl::Status CoordinatorSimulation::await(const std::function<bool()>& done) {
  const absl::Time until = time_.now() + kPatience;
  while (first_wrong_.ok() && !done()) {
    check_time();
    if (time_.step(until)) continue;
    std::string state = "no coordinator";
    if (coordinator() != nullptr) {
      const EngineStats stats = coordinator()->stats();
      state = absl::StrCat(coordinator()->describe(), ", ", stats.unfinished, " unfinished, ",
                           stats.running, " running, ", stats.waiting, " waiting, ",
                           stats.used_blocks, " blocks used");
    }
    return absl::InternalError(absl::StrCat("not done ", absl::FormatDuration(kPatience),
                                            " after the last fault: ", state, ";",
                                            clients_.describe_unfinished()));
  }
  return first_wrong_;
}

}  // namespace quire::test
