// The workers' side of a replay: takes plans as a worker group would, says how long each takes on
// the modelled GPU, and answers with made-up tokens. It mirrors only what that needs: who is in a
// slot and how far its KV reaches.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/schedule/gpu_model.h"
#include "common/step.h"

namespace quire::bench {

// KV of all slots, in tokens of whole blocks.
struct CopiesUse {
  double copies = 0;  // if nothing were shared
  double limit = 0;   // if all choices of a request shared its prompt's full blocks, no more
};

class FakeFleet {
 public:
  // Requests are known by their seed, which is their id, from 0 to num_requests - 1.
  FakeFleet(const GpuModel& gpu, int max_num_seqs, int block_size, std::size_t num_requests);

  // Seconds that the plan takes; `result` is what the sampling rank would send.
  double run(const StepPlan& plan, StepResult* result);

  CopiesUse use() const;
  // Of the plan run last: requests in it for the first time.
  const std::vector<RequestId>& first_admitted() const { return first_admitted_; }
  double swapped_blocks() const { return swapped_blocks_; }

 private:
  struct Slot {
    std::uint64_t request = 0;
    int prompt_tokens = 0;
    int position = 0;  // tokens whose KV is there once the plans so far have run
    int logprobs = -1;
    std::uint64_t salt = 0;  // of its made-up tokens
    bool used = false;
  };

  void admit(const AdmitRow& row);
  void release(SlotId slot);
  void move(Slot* slot, int position);
  void answer(const PlanRow& row, int index, const Slot& slot, StepResult* result) const;
  double blocks(int tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  const GpuModel gpu_;
  const int block_size_;
  std::vector<Slot> slots_;
  std::vector<std::uint8_t> slots_of_;  // [request]
  std::vector<bool> known_;             // [request]
  std::vector<RequestId> first_admitted_;
  std::uint64_t num_admits_ = 0;
  double copies_blocks_ = 0;
  double shareable_blocks_ = 0;
  double swapped_blocks_ = 0;
};

}  // namespace quire::bench
