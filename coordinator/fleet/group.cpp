// How an epoch begins, and how it ends. Steps are in group_steps.cpp.
#include "coordinator/fleet/group.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/wire.h"

namespace quire {
namespace {

constexpr std::int64_t kMaxHostBlocks = 1 << 30;  // as plans can name

}  // namespace

void Group::begin(Instance instance, EpochId epoch, std::uint64_t known_saved_prefixes,
                  absl::Time now, GroupActions& out) {
  std::int64_t blocks = std::numeric_limits<int>::max();
  std::int64_t host_blocks = kMaxHostBlocks;
  std::uint64_t saved = known_saved_prefixes;
  for (auto& [rank, member] : instance.ranks) {
    blocks = std::min(blocks, member.hello.kv_capacity_blocks);
    host_blocks = std::min(host_blocks, member.hello.host_blocks);
    if (member.hello.saved_prefixes != saved) saved = 0;  // some rank lacks its part
    member.last_heard = now;
    member.confirmed = 0;
  }
  live_.emplace();
  live_->instance = std::move(instance);
  live_->epoch = epoch;
  live_->num_blocks = static_cast<int>(blocks);
  live_->num_host_blocks = static_cast<int>(host_blocks);
  live_->saved_prefixes = saved;
  const std::uint64_t nonce = rules_->nonce();
  live_->digests = {nonce};  // whoever was not told it cannot confirm a step
  live_->awaits_id = !live_->instance.first().collective.empty();
  live_->id_due = now + rules_->id_deadline;
  out.push_back(action::Welcome{links(), live_->epoch, nonce, live_->num_blocks,
                                live_->num_host_blocks, saved != 0});
  advance_proof(now, out);
}

bool Group::collective_id(LinkId link, EpochId epoch, std::string id, absl::Time now,
                          GroupActions& out) {
  if (!live_ || epoch != live_->epoch) return false;
  Member& from = *member(link);
  from.last_heard = now;
  if (from.hello.rank != 0 || !live_->awaits_id) {
    end(EndCause::kProtocol,
        absl::StrCat(place_of(from.hello), " sent an id for the collective, which ",
                     from.hello.rank != 0 ? "rank 0 makes" : "was not asked for"),
        out);
    return true;
  }
  if (id.empty() || id.size() > wire::kMaxCollectiveIdBytes) {
    end(EndCause::kProtocol,
        absl::StrCat(place_of(from.hello), " sent an id of ", id.size(),
                     " bytes for the collective"),
        out);
    return true;
  }
  live_->awaits_id = false;
  out.push_back(action::Relay{links(), live_->epoch, std::move(id)});
  advance_proof(now, out);
  return true;
}

void Group::gone(LinkId link, const std::string& why, GroupActions& out) {
  end(EndCause::kRankGone, absl::StrCat(place_of(member(link)->hello), ": ", why), out);
}

void Group::end(EndCause cause, const std::string& why, GroupActions& out) {
  if (!live_) return;
  out.push_back(action::Close{links(), why});
  out.push_back(action::Ended{live_->epoch, live_->instance.id, cause, live_->ready});
  if (live_->ready) out.push_back(action::Lost{live_->epoch, cause, why});
  live_.reset();
}

Member* Group::member(LinkId link) {
  if (!live_) return nullptr;
  for (auto& [rank, member] : live_->instance.ranks) {
    if (member.link == link) return &member;
  }
  return nullptr;
}

bool Group::has(LinkId link) const {
  return live_ && std::any_of(live_->instance.ranks.begin(), live_->instance.ranks.end(),
                              [&](const auto& entry) { return entry.second.link == link; });
}

std::vector<LinkId> Group::links() const {
  std::vector<LinkId> links;
  if (!live_) return links;
  for (const auto& [rank, member] : live_->instance.ranks) links.push_back(member.link);
  return links;
}

std::string Group::describe() const {
  std::vector<std::string> hosts;
  for (const auto& [rank, member] : live_->instance.ranks) {
    if (hosts.empty() || hosts.back() != member.hello.host) hosts.push_back(member.hello.host);
  }
  return absl::StrCat("epoch ", live_->epoch, ": ", live_->instance.ranks.size(),
                      live_->instance.ranks.size() == 1 ? " rank on " : " ranks on ",
                      absl::StrJoin(hosts, ", "), live_->ready ? "" : ", proving");
}

}  // namespace quire
