// What the tests of the fleet's rules are played with: scripted hellos, heartbeats and results; no
// stream and no real clock.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/wire.h"
#include "coordinator/fleet/groups.h"

namespace quire::test {

template <typename T>
std::vector<T> only(const GroupActions& actions) {
  std::vector<T> out;
  for (const GroupAction& action : actions) {
    if (const T* found = std::get_if<T>(&action)) out.push_back(*found);
  }
  return out;
}

inline void append(GroupActions more, GroupActions* all) {
  for (GroupAction& action : more) all->push_back(std::move(action));
}

// Of a coordinator that present_rank() can join. `world` 0: groups of any size.
inline GroupRules rules_of(int world, std::function<std::uint64_t()> nonce) {
  GroupRules rules;
  rules.build = "b1";
  rules.world = world;
  rules.model_hash = 77;
  rules.nonce = std::move(nonce);
  return rules;
}

inline RankHello present_rank(const std::string& instance, int rank, int world) {
  RankHello h;
  h.protocol = wire::kProtocolVersion;
  h.instance = instance;
  h.rank = rank;
  h.world = world;
  h.pid = 100 + static_cast<std::uint64_t>(rank) + 1000 * static_cast<unsigned char>(instance[0]);
  h.build = "b1";
  h.model_hash = 77;
  h.numerics_id = "avx512";
  h.layout_digest = "L";
  return h;
}

// A scripted worker's mirror: what its heartbeat would say.
struct Mirror {
  StepId step = 0;
  std::uint64_t digest = 0;
  void take(const GroupActions& actions) {
    for (const auto& welcome : only<action::Welcome>(actions)) digest = welcome.nonce;
    for (const auto& sent : only<action::Broadcast>(actions)) {
      digest = wire::plan_digest(digest, sent.plan);
      step = wire::decode_plan(sent.plan).value().step;
    }
  }
};

class GroupTest : public ::testing::Test {
 protected:
  static constexpr int kWorld = 2;

  GroupRules rules() {
    return rules_of(kWorld, [this] { return ++nonce_; });
  }

  RankHello hello(int rank, const std::string& instance = "A") {
    RankHello h = present_rank(instance, rank, kWorld);
    h.host = "host0";
    h.kv_capacity_blocks = 50 - 10 * rank;
    return h;
  }

  StepResult answer(StepId step, int rows = 1) {
    StepResult r;
    r.epoch = epoch();
    r.step = step;
    r.rows.resize(static_cast<std::size_t>(rows));
    return r;
  }

  // Brings instance `name` on links first, first + 1 to ready; returns every action on the way.
  GroupActions make_ready(LinkId first, const std::string& name = "A") {
    group_.hello(first, hello(0, name), now_);
    GroupActions all = group_.hello(first + 1, hello(1, name), now_);
    mirror_ = {};
    mirror_.take(all);
    append(prove(first), &all);
    return all;
  }

  GroupActions prove(LinkId first) {
    GroupActions all;
    const auto add = [&](GroupActions more) {
      mirror_.take(more);
      append(std::move(more), &all);
    };
    add(group_.result(first, answer(1), now_));
    add(group_.result(first, answer(2, 0), now_));
    add(group_.heartbeat(first + 1, epoch(), mirror_.step, mirror_.digest, now_));
    return all;
  }

  StepPlan plan(StepId step) {
    StepPlan p;
    p.epoch = epoch();
    p.step = step;
    return p;
  }

  EpochId epoch() const { return group_.seat(0).epoch(); }

  std::uint64_t nonce_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  Groups group_{rules()};
  Mirror mirror_;
};

}  // namespace quire::test
