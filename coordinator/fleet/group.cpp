// How an instance becomes the epoch, and how the epoch ends. Steps are in group_steps.cpp.
#include "coordinator/fleet/group.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status.h"
#include "common/wire.h"

namespace quire {
namespace {

constexpr std::size_t kMaxStandbyInstances = 8;
constexpr std::size_t kMaxUnproven = 16;
constexpr std::int64_t kMaxHostBlocks = 1 << 30;  // as plans can name
constexpr EpochId kMaxEpoch = EpochId{1} << 62;

std::string place(const RankHello& hello) {
  return absl::StrCat("rank ", hello.rank, " on ", hello.host, " (pid ", hello.pid, ")");
}

bool same_process(const RankHello& a, const RankHello& b) {
  return a.host == b.host && a.pid == b.pid;
}

// The time taken must not tell how much of a guess is right.
bool same_secret(const std::string& ours, const std::string& given) {
  unsigned differ = ours.size() == given.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const char ours_i = ours.empty() ? '\0' : ours[i % ours.size()];
    differ |= static_cast<unsigned>(static_cast<unsigned char>(ours_i ^ given[i]));
  }
  return differ == 0;
}

}  // namespace

Group::Group(GroupRules rules) : rules_(std::move(rules)), last_epoch_(rules_.last_epoch) {
  QUIRE_CHECK(rules_.nonce != nullptr);
}

absl::Status Group::check_hello(const RankHello& hello) const {
  const auto refuse = [&](const auto&... words) {
    return absl::FailedPreconditionError(absl::StrCat(place(hello), ": ", words...));
  };
  if (!rules_.secret.empty() && !same_secret(rules_.secret, hello.secret)) {
    return refuse(
        "the worker secret is wrong; start it with the coordinator's --worker-secret-file");
  }
  if (hello.protocol != wire::kProtocolVersion) {
    return refuse("it speaks protocol ", hello.protocol, ", but the coordinator speaks ",
                  wire::kProtocolVersion, "; use one build for both");
  }
  if (hello.build != rules_.build) {
    return refuse("its build is ", hello.build, ", but the coordinator's is ", rules_.build,
                  "; use one build for both");
  }
  if (hello.instance.empty()) return refuse("its Hello names no instance");
  if (hello.world != rules_.world) {
    return refuse("its group has ", hello.world, " ranks, but the coordinator was started with ",
                  "--tensor-parallel-size ", rules_.world);
  }
  if (hello.rank < 0 || hello.rank >= hello.world) {
    return refuse("its rank is outside [0, ", hello.world - 1, "]");
  }
  if (hello.model_hash != rules_.model_hash) {
    return refuse("it loaded another model than the coordinator's (hash ",
                  absl::Hex(hello.model_hash, absl::kZeroPad16), ", not ",
                  absl::Hex(rules_.model_hash, absl::kZeroPad16), ")");
  }
  if (hello.last_epoch > kMaxEpoch) {
    return refuse("it says that it was in epoch ", hello.last_epoch, ", which there cannot be");
  }
  if (hello.kv_capacity_blocks < 1) {
    return refuse("its memory has no room for a single KV block; raise --kv-cache-memory-bytes");
  }
  if (std::find(unproven_.begin(), unproven_.end(), hello.instance) != unproven_.end()) {
    return refuse("instance ", hello.instance, " failed its first steps; start a new group");
  }
  return absl::OkStatus();
}

// What all ranks of one instance must agree on.
absl::Status Group::check_instance(const Instance& instance) const {
  const RankHello& first = instance.ranks.at(0).hello;
  std::set<std::string> hosts = {first.host};
  const std::string* previous_host = &first.host;
  for (const auto& [rank, member] : instance.ranks) {
    const RankHello& hello = member.hello;
    const auto refuse = [&](const char* what, const std::string& ours, const std::string& theirs) {
      return absl::FailedPreconditionError(
          absl::StrCat("instance ", instance.id, ": rank ", rank, " on ", hello.host, " has ", what,
                       " ", theirs, ", but rank 0 on ", first.host, " has ", ours));
    };
    if (hello.numerics_id != first.numerics_id) {
      return refuse("numerics", first.numerics_id, hello.numerics_id);
    }
    if (hello.layout_digest != first.layout_digest) {
      return refuse("layout", first.layout_digest, hello.layout_digest);
    }
    if (hello.num_kv_groups != first.num_kv_groups) {
      return refuse("a count of KV groups of", absl::StrCat(first.num_kv_groups),
                    absl::StrCat(hello.num_kv_groups));
    }
    if (hello.collective != first.collective) {
      const auto named = [](const std::string& kind) {
        return kind.empty() ? std::string("host memory") : kind;
      };
      return refuse("ranks meeting over", named(first.collective), named(hello.collective));
    }
    if (hello.host == *previous_host) continue;
    if (!hosts.insert(hello.host).second) {
      return absl::FailedPreconditionError(absl::StrCat(
          "instance ", instance.id, ": the ranks of host ", hello.host,
          " are not neighbours (rank ", rank, " comes after another host's); map ranks by slot"));
    }
    previous_host = &hello.host;
  }
  return absl::OkStatus();
}

GroupActions Group::hello(LinkId link, RankHello hello, absl::Time now) {
  GroupActions out;
  if (absl::Status status = check_hello(hello); !status.ok()) {
    out.push_back(action::Refuse{link, std::string(status.message())});
    return out;
  }
  if (live_ && live_->instance.id == hello.instance) {
    const Member& member = live_->instance.ranks.at(hello.rank);
    if (!same_process(member.hello, hello)) {
      out.push_back(
          action::Refuse{link, absl::StrCat(place(hello), ": ", place(member.hello),
                                            " of the same instance is", " attached already")});
      return out;
    }
    end(EndCause::kRankGone, absl::StrCat(place(hello), " lost its stream and attached again"), now,
        out);
  }
  admit_standby(link, std::move(hello), now, out);
  form(now, out);
  return out;
}

void Group::admit_standby(LinkId link, RankHello hello, absl::Time now, GroupActions& out) {
  auto instance = std::find_if(standby_.begin(), standby_.end(),
                               [&](const Instance& i) { return i.id == hello.instance; });
  if (instance == standby_.end()) {
    if (standby_.size() >= kMaxStandbyInstances) {
      out.push_back(action::Refuse{
          link, absl::StrCat(place(hello), ": ", standby_.size(), " other groups wait already")});
      return;
    }
    instance = standby_.insert(standby_.end(), Instance{hello.instance, {}});
  }
  auto found = instance->ranks.find(hello.rank);
  if (found == instance->ranks.end()) {
    const int rank = hello.rank;
    instance->ranks.emplace(rank, Member{link, std::move(hello), now, 0});
    return;
  }
  Member& member = found->second;
  if (!same_process(member.hello, hello)) {
    out.push_back(action::Refuse{
        link, absl::StrCat(place(hello), ": ", place(member.hello),
                           " presented the same rank of instance ", hello.instance, " before")});
    return;
  }
  out.push_back(action::Close{{member.link}, "the rank attached again"});
  member = Member{link, std::move(hello), now, 0};
}

void Group::form(absl::Time now, GroupActions& out) {
  for (std::size_t i = 0; !live_ && i < standby_.size();) {
    if (standby_[i].ranks.size() < static_cast<std::size_t>(rules_.world)) {
      ++i;
      continue;
    }
    Instance instance = std::move(standby_[i]);
    standby_.erase(standby_.begin() + static_cast<std::ptrdiff_t>(i));
    if (absl::Status status = check_instance(instance); !status.ok()) {
      for (const auto& [rank, member] : instance.ranks) {
        out.push_back(action::Refuse{member.link, std::string(status.message())});
      }
      continue;
    }
    begin_epoch(std::move(instance), now, out);
  }
}

void Group::begin_epoch(Instance instance, absl::Time now, GroupActions& out) {
  std::int64_t blocks = std::numeric_limits<int>::max();
  std::int64_t host_blocks = kMaxHostBlocks;
  std::uint64_t saved = rules_.known_saved_prefixes;
  for (auto& [rank, member] : instance.ranks) {
    blocks = std::min(blocks, member.hello.kv_capacity_blocks);
    host_blocks = std::min(host_blocks, member.hello.host_blocks);
    if (member.hello.saved_prefixes != saved) saved = 0;  // some rank lacks its part
    last_epoch_ = std::max(last_epoch_, member.hello.last_epoch);
    member.last_heard = now;
    member.confirmed = 0;
  }
  live_.emplace();
  live_->instance = std::move(instance);
  live_->epoch = ++last_epoch_;
  live_->num_blocks = static_cast<int>(blocks);
  live_->num_host_blocks = static_cast<int>(host_blocks);
  live_->saved_prefixes = saved;
  const std::uint64_t nonce = rules_.nonce();
  live_->digests = {nonce};  // whoever was not told it cannot confirm a step
  live_->awaits_id = !live_->instance.ranks.at(0).hello.collective.empty();
  live_->id_due = now + rules_.id_deadline;
  out.push_back(action::Welcome{live_links(), live_->epoch, nonce, live_->num_blocks,
                                live_->num_host_blocks, saved != 0});
  advance_proof(now, out);
}

GroupActions Group::collective_id(LinkId link, EpochId epoch, std::string id, absl::Time now) {
  GroupActions out;
  Member* member = live_member(link);
  if (member == nullptr || epoch != live_->epoch) {
    ++stale_dropped_;
    return out;
  }
  member->last_heard = now;
  if (member->hello.rank != 0 || !live_->awaits_id) {
    end(EndCause::kProtocol,
        absl::StrCat(place(member->hello), " sent an id for the collective, which ",
                     member->hello.rank != 0 ? "rank 0 makes" : "was not asked for"),
        now, out);
    return out;
  }
  if (id.empty() || id.size() > wire::kMaxCollectiveIdBytes) {
    end(EndCause::kProtocol,
        absl::StrCat(place(member->hello), " sent an id of ", id.size(),
                     " bytes for the collective"),
        now, out);
    return out;
  }
  live_->awaits_id = false;
  out.push_back(action::Relay{live_links(), live_->epoch, std::move(id)});
  advance_proof(now, out);
  return out;
}

GroupActions Group::gone(LinkId link, const std::string& why, absl::Time now) {
  GroupActions out;
  if (const Member* member = live_member(link)) {
    end(EndCause::kRankGone, absl::StrCat(place(member->hello), ": ", why), now, out);
    return out;
  }
  for (auto instance = standby_.begin(); instance != standby_.end(); ++instance) {
    std::erase_if(instance->ranks, [&](const auto& entry) { return entry.second.link == link; });
    if (!instance->ranks.empty()) continue;
    standby_.erase(instance);
    return out;
  }
  return out;
}

GroupActions Group::end_epoch(EndCause cause, const std::string& why, absl::Time now) {
  GroupActions out;
  if (live_) end(cause, why, now, out);
  return out;
}

void Group::end(EndCause cause, const std::string& why, absl::Time now, GroupActions& out) {
  out.push_back(action::Close{live_links(), why});
  out.push_back(action::Ended{live_->epoch, live_->instance.id, cause});
  if (live_->ready) {
    out.push_back(action::Lost{cause, why});
  } else {
    unproven_.push_back(live_->instance.id);
    if (unproven_.size() > kMaxUnproven) unproven_.pop_front();
  }
  live_.reset();
  form(now, out);
}

Group::Member* Group::live_member(LinkId link) {
  if (!live_) return nullptr;
  for (auto& [rank, member] : live_->instance.ranks) {
    if (member.link == link) return &member;
  }
  return nullptr;
}

std::vector<LinkId> Group::live_links() const {
  std::vector<LinkId> links;
  for (const auto& [rank, member] : live_->instance.ranks) links.push_back(member.link);
  return links;
}

std::vector<LinkId> Group::ready_links() const {
  return ready() ? live_links() : std::vector<LinkId>();
}

std::string Group::describe() const {
  std::vector<std::string> waiting;
  for (const Instance& instance : standby_) {
    waiting.push_back(absl::StrCat(instance.ranks.size(), " of ", rules_.world, " ranks of ",
                                   instance.id, " wait"));
  }
  const std::string standby = waiting.empty() ? "" : "; " + absl::StrJoin(waiting, ", ");
  if (!live_) return absl::StrCat("no epoch", standby);
  std::vector<std::string> hosts;
  for (const auto& [rank, member] : live_->instance.ranks) {
    if (hosts.empty() || hosts.back() != member.hello.host) hosts.push_back(member.hello.host);
  }
  return absl::StrCat("epoch ", live_->epoch, ": ", live_->instance.ranks.size(),
                      live_->instance.ranks.size() == 1 ? " rank on " : " ranks on ",
                      absl::StrJoin(hosts, ", "), live_->ready ? "" : ", proving", standby);
}

}  // namespace quire
