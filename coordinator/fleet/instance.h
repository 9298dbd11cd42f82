// One life of a worker group's processes as their Hellos present it, and what they must agree on:
// each with the coordinator, all ranks of an instance with each other, all groups with each other.
// Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "coordinator/fleet/group_action.h"

namespace quire {

struct RankHello {
  std::uint32_t protocol = 0;
  std::string instance;
  int rank = 0;
  int world = 0;
  std::string host;
  std::uint64_t pid = 0;
  std::string build;
  std::uint64_t model_hash = 0;
  std::string numerics_id;
  std::string layout_digest;
  std::int64_t kv_capacity_blocks = 0;
  std::string secret;
  int num_kv_groups = 1;
  std::string collective;            // by what the ranks meet; empty: in host memory
  std::int64_t host_blocks = 0;      // of its offload store
  std::uint64_t saved_prefixes = 0;  // what that still holds of an earlier life; 0: nothing
  EpochId last_epoch = 0;            // that its process was in, with an earlier coordinator
  bool one_answer = false;           // a row's bits do not depend on the rows beside it
};

inline constexpr int kMaxWorld = 4096;

// What a group must match, and its deadlines.
struct GroupRules {
  std::string build;
  int world = 1;  // ranks of every group; 0: each group says its own
  std::uint64_t model_hash = 0;
  std::string secret;                      // empty: none is asked for
  std::uint64_t known_saved_prefixes = 0;  // what the coordinator can make use of; 0: nothing
  EpochId last_epoch = 0;                  // of an earlier coordinator; ours are above it
  absl::Duration lease = absl::Seconds(5);
  absl::Duration step_deadline = absl::Minutes(5);
  absl::Duration id_deadline = absl::Seconds(30);  // for rank 0 to make its collective's id
  std::function<std::uint64_t()> nonce;
};

struct Member {
  LinkId link = 0;
  RankHello hello;
  absl::Time last_heard;
  StepId confirmed = 0;  // by its heartbeat
};

struct Instance {
  std::string id;
  std::map<int, Member> ranks;
  absl::Time newest = absl::InfinitePast();  // when the last of them came

  const RankHello& first() const { return ranks.begin()->second.hello; }
  int world() const { return first().world; }
  bool is_complete() const { return ranks.size() == static_cast<std::size_t>(world()); }
  EpochId last_epoch() const;  // the largest that one of the ranks was in; 0: none was
};

// "rank 1 on host0 (pid 42)"
std::string place_of(const RankHello& hello);
bool same_process(const RankHello& a, const RankHello& b);

// FailedPrecondition with a sentence that names the rank and says what to do.
absl::Status check_hello(const GroupRules& rules, const RankHello& hello);
// Of a complete one: what all of its ranks must agree on.
absl::Status check_instance(const Instance& instance);
// A request may go from one group to the other in the middle: both must compute the same.
absl::Status check_alike(const Instance& instance, const Instance& live);

}  // namespace quire
