// Who waits, and who takes which seat.
#include "coordinator/fleet/groups.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kMaxStandbyInstances = 8;  // beside those that may find a seat
constexpr std::size_t kMaxUnproven = 16;
// To notice that the coordinator is gone may take a lease, to dial again another.
constexpr int kLeasesToReturn = 3;

// Null: there is none.
template <typename Seats, typename Predicate>
auto find_seat(Seats& seats, const Predicate& matches) -> decltype(seats.data()) {
  const auto found = std::find_if(seats.begin(), seats.end(), matches);
  return found == seats.end() ? nullptr : &*found;
}

}  // namespace

Groups::Groups(GroupRules rules, int num_seats)
    : rules_(std::make_shared<const GroupRules>(std::move(rules))),
      last_epoch_(rules_->last_epoch) {
  QUIRE_CHECK(rules_->nonce != nullptr);
  QUIRE_CHECK_GT(num_seats, 0);
  for (int seat = 0; seat < num_seats; ++seat) seats_.emplace_back(rules_, seat);
}

GroupActions Groups::hello(LinkId link, RankHello hello, absl::Time now) {
  GroupActions out;
  absl::Status status = check_hello(*rules_, hello);
  if (status.ok() &&
      std::find(unproven_.begin(), unproven_.end(), hello.instance) != unproven_.end()) {
    status =
        absl::FailedPreconditionError(absl::StrCat(place_of(hello), ": instance ", hello.instance,
                                                   " failed its first steps; start a new group"));
  }
  Group* seat = status.ok() ? group_of(hello.instance) : nullptr;
  const Member* present = nullptr;
  if (seat != nullptr) {
    const auto& ranks = seat->instance()->ranks;
    const auto found = ranks.find(hello.rank);
    present = found == ranks.end() ? &ranks.begin()->second : &found->second;
    if (found == ranks.end() || !same_process(present->hello, hello)) {
      status = absl::FailedPreconditionError(
          absl::StrCat(place_of(hello), ": ", place_of(present->hello),
                       " of the same instance is attached already"));
    }
  }
  if (!status.ok()) {
    out.push_back(action::Refuse{link, std::string(status.message())});
    return out;
  }
  if (seat != nullptr) {
    seat->end(EndCause::kRankGone,
              absl::StrCat(place_of(hello), " lost its stream and attached again"), out);
  }
  admit_standby(link, std::move(hello), now, out);
  return settle(std::move(out), now);
}

void Groups::admit_standby(LinkId link, RankHello hello, absl::Time now, GroupActions& out) {
  auto instance = std::find_if(standby_.begin(), standby_.end(),
                               [&](const Instance& i) { return i.id == hello.instance; });
  if (instance == standby_.end()) {
    if (standby_.size() >= seats_.size() + kMaxStandbyInstances) {
      out.push_back(action::Refuse{link, absl::StrCat(place_of(hello), ": ", standby_.size(),
                                                      " other groups wait already")});
      return;
    }
    instance = standby_.insert(standby_.end(), Instance{hello.instance, {}, now});
  } else if (instance->world() != hello.world) {
    out.push_back(
        action::Refuse{link, absl::StrCat(place_of(hello), ": its group has ", hello.world,
                                          " ranks, but ", place_of(instance->first()),
                                          " of the same instance says ", instance->world())});
    return;
  }
  instance->newest = now;
  auto found = instance->ranks.find(hello.rank);
  if (found == instance->ranks.end()) {
    const int rank = hello.rank;
    instance->ranks.emplace(rank, Member{link, std::move(hello), now, 0});
    return;
  }
  Member& member = found->second;
  if (!same_process(member.hello, hello)) {
    out.push_back(action::Refuse{
        link, absl::StrCat(place_of(hello), ": ", place_of(member.hello),
                           " presented the same rank of instance ", hello.instance, " before")});
    return;
  }
  out.push_back(action::Close{{member.link}, "the rank attached again"});
  member = Member{link, std::move(hello), now, 0};
}

GroupActions Groups::settle(GroupActions out, absl::Time now) {
  for (const GroupAction& each : out) {
    const auto* ended = std::get_if<action::Ended>(&each);
    if (ended == nullptr || ended->was_ready) continue;
    unproven_.push_back(ended->instance);
    if (unproven_.size() > kMaxUnproven) unproven_.pop_front();
  }
  for (Group& seat : seats_) {
    while (seat.is_free() && take_seat(&seat, now, out)) {
    }
  }
  return out;
}

// After the death of a coordinator the ranks of its epoch come back within their lease, or leave.
// One that hangs does neither: the others would wait for it for ever. (A new instance may take its
// time: it loads a model.)
void Groups::give_up_partial(absl::Time now, GroupActions& out) {
  std::erase_if(standby_, [&](const Instance& each) {
    const EpochId last_epoch = each.last_epoch();
    if (each.is_complete() || last_epoch == 0 ||
        now - each.newest <= kLeasesToReturn * rules_->lease) {
      return false;
    }
    for (const auto& [rank, member] : each.ranks) {
      out.push_back(action::Refuse{
          member.link, absl::StrCat("instance ", each.id, ": only ", each.ranks.size(), " of ",
                                    each.world(), " ranks came back; start a new group")});
    }
    out.push_back(action::Ended{last_epoch, each.id, EndCause::kRankSilent, /*was_ready=*/true});
    return true;
  });
}

// False: no complete instance waits.
bool Groups::take_seat(Group* seat, absl::Time now, GroupActions& out) {
  const auto found = std::find_if(standby_.begin(), standby_.end(),
                                  [](const Instance& each) { return each.is_complete(); });
  if (found == standby_.end()) return false;
  Instance instance = std::move(*found);
  standby_.erase(found);
  if (absl::Status status = check_seated(instance); !status.ok()) {
    for (const auto& [rank, member] : instance.ranks) {
      out.push_back(action::Refuse{member.link, std::string(status.message())});
    }
    return true;
  }
  last_epoch_ = std::max(last_epoch_, instance.last_epoch()) + 1;
  seat->begin(std::move(instance), last_epoch_, rules_->known_saved_prefixes, now, out);
  return true;
}

absl::Status Groups::check_seated(const Instance& instance) const {
  QUIRE_RETURN_IF_ERROR(check_instance(instance));
  for (const Group& seat : seats_) {
    if (!seat.is_free()) QUIRE_RETURN_IF_ERROR(check_alike(instance, *seat.instance()));
  }
  return absl::OkStatus();
}

GroupActions Groups::collective_id(LinkId link, EpochId epoch, std::string id, absl::Time now) {
  GroupActions out;
  Group* group = group_of(link);
  if (group == nullptr || !group->collective_id(link, epoch, std::move(id), now, out)) {
    ++stale_dropped_;
  }
  return settle(std::move(out), now);
}

GroupActions Groups::heartbeat(LinkId link, EpochId epoch, StepId step, std::uint64_t digest,
                               absl::Time now) {
  GroupActions out;
  Group* group = group_of(link);
  if (group == nullptr) return out;  // a standby's, or of a stream that is closing
  if (!group->heartbeat(link, epoch, step, digest, now, out)) ++stale_dropped_;
  return settle(std::move(out), now);
}

GroupActions Groups::result(LinkId link, StepResult result, absl::Time now) {
  GroupActions out;
  Group* group = group_of(link);
  if (group == nullptr || !group->result(link, std::move(result), now, out)) ++stale_dropped_;
  return settle(std::move(out), now);
}

GroupActions Groups::worker_error(LinkId link, EpochId epoch, const std::string& message,
                                  absl::Time now) {
  GroupActions out;
  if (Group* group = group_of(link)) group->worker_error(link, epoch, message, out);
  return settle(std::move(out), now);
}

GroupActions Groups::gone(LinkId link, const std::string& why, absl::Time now) {
  GroupActions out;
  if (Group* group = group_of(link)) {
    group->gone(link, why, out);
    return settle(std::move(out), now);
  }
  for (auto instance = standby_.begin(); instance != standby_.end(); ++instance) {
    std::erase_if(instance->ranks, [&](const auto& entry) { return entry.second.link == link; });
    if (!instance->ranks.empty()) continue;
    standby_.erase(instance);
    return out;
  }
  return out;
}

GroupActions Groups::tick(absl::Time now) {
  GroupActions out;
  give_up_partial(now, out);
  for (Group& seat : seats_) seat.tick(now, out);
  return settle(std::move(out), now);
}

GroupActions Groups::plan(const StepPlan& plan, absl::Time now) {
  GroupActions out;
  for (Group& seat : seats_) seat.plan(plan, now, out);
  return out;
}

GroupActions Groups::end_epoch(EpochId epoch, EndCause cause, const std::string& why,
                               absl::Time now) {
  GroupActions out;
  Group* group = find_seat(
      seats_, [&](const Group& seat) { return !seat.is_free() && seat.epoch() == epoch; });
  if (group != nullptr) group->end(cause, why, out);
  return settle(std::move(out), now);
}

Group* Groups::group_of(LinkId link) {
  return find_seat(seats_, [&](const Group& seat) { return seat.has(link); });
}

const Group* Groups::of(LinkId link) const {
  return find_seat(seats_, [&](const Group& seat) { return seat.has(link); });
}

Group* Groups::group_of(const std::string& instance) {
  return find_seat(seats_, [&](const Group& seat) {
    return !seat.is_free() && seat.instance()->id == instance;
  });
}

std::vector<LinkId> Groups::ready_links() const {
  std::vector<LinkId> all;
  for (const Group& seat : seats_) {
    if (!seat.ready()) continue;
    const std::vector<LinkId> links = seat.links();
    all.insert(all.end(), links.begin(), links.end());
  }
  return all;
}

std::string Groups::describe() const {
  std::vector<std::string> parts;
  for (const Group& seat : seats_) {
    if (!seat.is_free()) parts.push_back(seat.describe());
  }
  const std::string live = parts.empty() ? "no epoch" : absl::StrJoin(parts, "; ");
  parts.clear();
  for (const Instance& each : standby_) {
    parts.push_back(
        absl::StrCat(each.ranks.size(), " of ", each.world(), " ranks of ", each.id, " wait"));
  }
  return absl::StrCat(live, parts.empty() ? "" : "; ", absl::StrJoin(parts, ", "));
}

}  // namespace quire
