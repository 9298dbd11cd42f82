// The sentences of what does not fit together.
#include "coordinator/fleet/instance.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/wire.h"

namespace quire {
namespace {

constexpr EpochId kMaxEpoch = EpochId{1} << 62;

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

EpochId Instance::last_epoch() const {
  EpochId last = 0;
  for (const auto& [rank, member] : ranks) last = std::max(last, member.hello.last_epoch);
  return last;
}

std::string place_of(const RankHello& hello) {
  return absl::StrCat("rank ", hello.rank, " on ", hello.host, " (pid ", hello.pid, ")");
}

bool same_process(const RankHello& a, const RankHello& b) {
  return a.host == b.host && a.pid == b.pid;
}

absl::Status check_hello(const GroupRules& rules, const RankHello& hello) {
  const auto refuse = [&](const auto&... words) {
    return absl::FailedPreconditionError(absl::StrCat(place_of(hello), ": ", words...));
  };
  if (!rules.secret.empty() && !same_secret(rules.secret, hello.secret)) {
    return refuse(
        "the worker secret is wrong; start it with the coordinator's --worker-secret-file");
  }
  if (hello.protocol != wire::kProtocolVersion) {
    return refuse("it speaks protocol ", hello.protocol, ", but the coordinator speaks ",
                  wire::kProtocolVersion, "; use one build for both");
  }
  if (hello.build != rules.build) {
    return refuse("its build is ", hello.build, ", but the coordinator's is ", rules.build,
                  "; use one build for both");
  }
  if (hello.instance.empty()) return refuse("its Hello names no instance");
  if (rules.world > 0 && hello.world != rules.world) {
    return refuse("its group has ", hello.world, " ranks, but the coordinator was started with ",
                  "--tensor-parallel-size ", rules.world);
  }
  if (hello.world < 1 || hello.world > kMaxWorld) {
    return refuse("its group has ", hello.world, " ranks; it must have 1 to ", kMaxWorld);
  }
  if (hello.rank < 0 || hello.rank >= hello.world) {
    return refuse("its rank is outside [0, ", hello.world - 1, "]");
  }
  if (hello.model_hash != rules.model_hash) {
    return refuse("it loaded another model than the coordinator's (hash ",
                  absl::Hex(hello.model_hash, absl::kZeroPad16), ", not ",
                  absl::Hex(rules.model_hash, absl::kZeroPad16), ")");
  }
  if (hello.last_epoch > kMaxEpoch) {
    return refuse("it says that it was in epoch ", hello.last_epoch, ", which there cannot be");
  }
  if (hello.kv_capacity_blocks < 1) {
    return refuse("its memory has no room for a single KV block; raise --kv-cache-memory-bytes");
  }
  return absl::OkStatus();
}

absl::Status check_instance(const Instance& instance) {
  const RankHello& first = instance.first();
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

absl::Status check_alike(const Instance& instance, const Instance& live) {
  const RankHello& ours = live.first();
  const RankHello& theirs = instance.first();
  const auto refuse = [&](const auto&... words) {
    return absl::FailedPreconditionError(
        absl::StrCat("instance ", instance.id, " on ", theirs.host, " ", words...,
                     "; the groups of one server must give the same answers"));
  };
  if (theirs.numerics_id != ours.numerics_id) {
    return refuse("has numerics ", theirs.numerics_id, ", but the group that serves on ", ours.host,
                  " has ", ours.numerics_id);
  }
  // In host memory sums are the same for any number of ranks; a device's collective adds in the
  // order of its ranks.
  const bool sums_by_rank = !theirs.collective.empty() || !ours.collective.empty();
  if (sums_by_rank && (theirs.world != ours.world || theirs.collective != ours.collective)) {
    return refuse("has ", theirs.world, " ranks that meet over ",
                  theirs.collective.empty() ? "host memory" : theirs.collective,
                  ", but the group that serves on ", ours.host, " has ", ours.world, " over ",
                  ours.collective.empty() ? "host memory" : ours.collective);
  }
  return absl::OkStatus();
}

}  // namespace quire
