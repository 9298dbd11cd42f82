// A worker group without a model. HashWorker mirrors slots as a real worker does and keeps a KV
// arena whose cells say which token of which position they stand for. Every row reads back all that
// it attends to, through its block tables. So a plan that breaks the protocol (common/step.h), a
// block used twice, a shared one that is written, a wrong position or a lost token is an error that
// names the rule.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "tests/fakes/hash_arena.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

// What StepResult::busy_us says: a device's time, as the scheduler's cost model imagines it.
struct HashCost {
  double step_us = 1.0, token_us = 0.0, pick_us = 0.0;
  double context_us = 0.0;  // per token and position that it attends to
};

struct HashWorkerConfig {
  EpochId epoch = 1;
  StepId first_step = 1;
  int num_blocks = 0;
  int num_host_blocks = 0;
  int block_size = 16;
  int num_kv_groups = 1;
  int max_num_seqs = 128;
  int max_num_batched_tokens = 512;
  HashModel model;
  HashCost cost;
  // The upper half of a slot's seed names a domain (a tenant and a salt, say): no slot may read
  // what was stored for another domain.
  bool seed_names_domain = false;
};

class HashWorker {
 public:
  explicit HashWorker(HashWorkerConfig config);

  // The offload store of an earlier group, which has as many host blocks.
  void inherit_store(HashWorker* dead) { arena_.inherit_store(&dead->arena_); }

  // Runs one plan. InvalidArgument names the rule that the plan breaks.
  absl::Status run(const StepPlan& plan, StepResult* result);

 private:
  struct Slot {
    AdmitRow admit;
    std::uint64_t admission = 0;  // no other slot of this life has it
    std::uint64_t domain = 0;
    std::vector<TokenId> tokens;  // admitted, then sampled here or sent with rows
    int num_computed = 0;
    bool granted = false;                      // has had a row, or is a fork of one that has
    std::vector<std::vector<BlockId>> tables;  // [KV group][block]
  };
  struct Work {  // a row, once the slot's tables are what it needs
    const PlanRow* row = nullptr;
    Slot* slot = nullptr;
    int index = 0;  // in the plan
    int end = 0;
    int num_forks = 0;  // that pick from this row
    bool first = false;
  };

  absl::Status check_head(const StepPlan& plan);
  absl::Status run_rows(const StepPlan& plan, StepResult* result);
  absl::Status release(SlotId id);
  absl::Status admit(const AdmitRow& row);
  absl::Status fork(const AdmitRow& row, Slot* slot);
  absl::Status move_blocks(const StepPlan& plan);

  absl::Status grant(const PlanRow& row, Work* work);
  absl::Status extend(const PlanRow& row, Slot* slot);
  absl::Status change_tables(const PlanRow& row, int end, Slot* slot);
  absl::Status pair_fork(const Work& fork, std::map<SlotId, Work>* works);
  void count_holders(const std::map<SlotId, Work>& works);
  absl::Status check_filled(const StepPlan& plan) const;

  absl::Status open_prefix(const Work& work);
  absl::Status store(const Work& work);
  absl::Status read_back(const Work& work, int end);
  void pick(const Work& work, StepResult* result);
  RowResult pick_one(const Work& work, int length) const;

  HashCell expected(const Slot& slot, int position, int kv_group) const;
  HashCell& cell(const Slot& slot, int position, int kv_group);

  const HashWorkerConfig config_;
  HashArena arena_;
  StepId next_step_;
  std::uint64_t num_admissions_ = 0;
  std::map<SlotId, Slot> slots_;
  // Of the plan being run:
  std::set<BlockId> filled_;           // by loads and copies
  std::map<BlockId, int> num_gained_;  // table entries that rows brought
  // [block] table entries of slots that have a row. Others may be out of date: what a slot is to
  // drop, it is told with its next row, and nothing of it is read before.
  std::vector<int> num_holding_;
};

}  // namespace quire::test
