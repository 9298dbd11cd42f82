#include "tests/simulation/coordinator_world.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace quire::test {

const char* name_of(Fault fault) {
  static constexpr std::array<const char*, kNumFaults> names = {
      "killed ranks",  "killed groups",     "stopped ranks",    "stuck ranks",
      "stale results", "lying ranks",       "cut links",        "repeated messages",
      "crashes",       "crashes in writes", "crashes in turns", "pauses",
      "restarts",      "disk failures",     "cut logs",         "flipped rows",
      "flipped files", "broken clients"};
  return names[static_cast<std::size_t>(fault)];
}

CoordinatorWorld::CoordinatorWorld(std::uint64_t seed) : base(seed, /*shortest=*/24) {
  SchedulerConfig& config = base.config;
  config.num_kv_groups = 1;  // as the engine has it
  config.steps_in_flight = std::min(config.steps_in_flight, 2);
  config.max_num_batched_tokens = std::max(config.max_num_batched_tokens, pick(1, 32));
  for (std::size_t i = 0; i < config.tenant_weights.size(); ++i) {
    Tenant& tenant = tenants.emplace_back();
    tenant.name = absl::StrCat("tenant", i);
    tenant.weight = config.tenant_weights[i];
    if (chance(0.3)) tenant.max_requests = pick(2, 10);
    if (chance(0.2)) tenant.max_waiting_tokens = pick(50, 500);
  }
  queue = {.max_requests = chance(0.3) ? pick(2, 20) : 0,
           .max_tokens = chance(0.2) ? pick(50, 1000) : 0,
           .max_batched_tokens = config.max_num_batched_tokens};
  num_ranks = pick(1, 3);
  num_instances = chance(0.4) ? pick(2, 3) : 1;
  num_seats = pick(1, num_instances);
  has_collective_id = chance(0.3);
  is_supervised = chance(0.7);
  worker = base.group(0);
  step_time = absl::Milliseconds(pick(5, chance(0.5) ? 20 : 100));
  network_delay = absl::Microseconds(pick(50, 5000));
  commit_time = absl::Microseconds(pick(100, chance(0.2) ? 200000 : 5000));
  journal_bytes = chance(0.2) ? pick(160, 400) << 10 : 1 << 30;
  journal_keep = chance(0.3) ? absl::Minutes(2) : absl::Minutes(10);
  arrival_every = absl::Milliseconds(pick(300, 3000));
  faulty_for = absl::Seconds(pick(20, 40));
  is_live = seed % 2 == 0;
  base.beam_rate = chance(0.5) ? 0.0 : 0.15;
  base.deadline_rate = chance(0.5) ? 0.0 : 0.2;
  for (absl::Duration& every : fault_every) {
    every = chance(0.35) ? absl::Seconds(pick(2, 20)) : absl::InfiniteDuration();
  }
}

std::uint64_t CoordinatorWorld::any() {
  return static_cast<std::uint64_t>(pick(0, (1 << 30) - 1)) << 34 ^
         static_cast<std::uint64_t>(pick(0, (1 << 30) - 1)) << 17 ^
         static_cast<std::uint64_t>(pick(0, (1 << 30) - 1));
}

// By the nanosecond: no two things that are not meant to happen at the same time.
absl::Duration CoordinatorWorld::between(absl::Duration low, absl::Duration high) {
  const std::int64_t range = absl::ToInt64Nanoseconds(high - low);
  return low + absl::Nanoseconds(
                   static_cast<std::int64_t>(any() % static_cast<std::uint64_t>(range + 1)));
}

absl::Duration CoordinatorWorld::about(absl::Duration mean) {
  const double uniform = (static_cast<double>(any() >> 11) + 1) * 0x1p-53;
  return mean * std::min(8.0, -std::log(uniform));
}

Request CoordinatorWorld::request(std::uint64_t name, absl::Time now, int tenant) {
  while (true) {
    Request request = this->request(name, now);
    if (request.tenant == tenant) return request;
  }
}

Request CoordinatorWorld::request(std::uint64_t name, absl::Time now) {
  NewRequest wish = base.request(name, now);
  Request request;
  const int room = base.config.max_model_len - static_cast<int>(wish.prompt.size());
  request.prompt = std::move(wish.prompt);
  request.params = wish.params;
  request.params.max_tokens = std::clamp(request.params.max_tokens, 1, room);
  request.n = wish.n;
  request.beams = wish.beams;
  const int most = std::min(base.config.max_num_seqs, base.config.max_num_batched_tokens);
  if (request.beams.width > most) {
    request.beams.width = most;
    request.n = std::min(request.n, most);
  }
  request.tenant = wish.tenant;
  request.priority = wish.priority;
  request.cache_salt = wish.cache_salt;
  // A search that its deadline ends early shows what it has then: that oracle is another test's.
  if (request.beams.width == 0) request.deadline = wish.deadline + absl::Seconds(pick(0, 10));
  return request;
}

}  // namespace quire::test
