// The logits before every token of a text, from one rank's own parts without its sampler, so that a
// test can look up the logprob of any token and not only of the k best.
//
// Every observed position is a row of its own over the same blocks: in each layer K and V of all
// rows are stored before any row attends, so a row reads what its step stores. By the promise of
// one answer (kernels/README.md) the bits are those of any other way through the text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/worker/harness.h"
#include "worker/kv/kv_arena.h"
#include "worker/model/decoder.h"
#include "worker/runner/batch_builder.h"
#include "worker/runner/slot_table.h"

namespace quire::test {

// Sees the logits from which token number `position` of the text would be picked.
using LogitObserver = std::function<void(std::size_t position, absl::Span<const float> logits)>;

class Scorer {
 public:
  // One rank; a step takes as many tokens as both max_num_batched_tokens and max_num_seqs allow.
  static absl::StatusOr<std::unique_ptr<Scorer>> open(const std::string& model,
                                                      const GroupOptions& options);
  // Observes the positions from `from` on; those before are computed as a prompt is.
  absl::Status score(const std::vector<TokenId>& ids, const LogitObserver& observe,
                     std::size_t from = 1);

 private:
  Scorer(const StepLimits& limits, std::unique_ptr<Rank> rank, KvArena arena, BatchBuilder builder)
      : limits_(limits),
        rank_(std::move(rank)),
        arena_(std::move(arena)),
        builder_(std::move(builder)) {}
  absl::Status fill(const std::vector<TokenId>& ids, std::size_t begin, std::size_t end);
  void cover(std::size_t length);
  absl::Status step(const StepPlan& plan, std::size_t first, const LogitObserver& observe);

  const StepLimits limits_;
  std::unique_ptr<Rank> rank_;
  KvArena arena_;
  BatchBuilder builder_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<KvLayer> kv_layers_;
  std::vector<BlockId> table_;  // of the text, as far as it is computed
};

}  // namespace quire::test
