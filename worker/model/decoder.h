// The forward pass of a decoder-only transformer over this rank's shard. Enqueues only; nothing is
// read back here. All buffers are made once, for the largest step there may be.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch.h"
#include "kernels/ops.h"
#include "worker/comm/comm.h"
#include "worker/model/weights.h"

namespace quire {

struct DecoderLimits {
  int max_tokens = 0;     // T of the largest step
  int max_samples = 0;    // rows that may sample in one step
  int max_positions = 0;  // the longest sequence
  // Logits of so many bytes are gathered at a time; more rows go in several exchanges.
  std::size_t logit_bytes = std::size_t{16} << 20;
};

// The most bytes one rank contributes to one exchange under these limits: what Comm is opened with.
std::size_t exchange_bytes(const ModelSpec& spec, const ShardMap& shards,
                           const DecoderLimits& limits);

class Decoder {
 public:
  // All arguments but `limits` must outlive the decoder. ResourceExhausted names a buffer.
  static absl::StatusOr<std::unique_ptr<Decoder>> create(const ModelSpec& spec,
                                                         const ShardMap& shards,
                                                         const ModelWeights& weights,
                                                         Device& device, Comm& comm,
                                                         const DecoderLimits& limits);

  // Runs all T tokens through every layer, the last one with those alone that are sampled; K and V
  // of all go into `kv`, one entry per layer.
  void forward(const Batch& batch, absl::Span<const KvLayer> kv);

  // Rows of logits that fit one exchange.
  int max_logit_rows() const { return max_logit_rows_; }
  // After forward() of the same batch: the logits of sampling rows [first, first + count), count <=
  // max_logit_rows(). One piece per rank, in id order; valid until the exchange after the next one.
  Gathered logits(const Batch& batch, int first, int count);

 private:
  Decoder(const ModelSpec& spec, const ShardMap& shards, const ModelWeights& weights,
          Device& device, Comm& comm, const DecoderLimits& limits);
  absl::Status allocate_buffers();
  // Buffers of [T][columns] by ActivationLayout, those that are used. Each keeps its row stride
  // though layers may differ in format: kernels/ops.h.
  using ByLayout = std::array<DeviceBuffer, 3>;
  absl::Status allocate(ActivationLayout layout, int columns, const char* what, ByLayout& buffers);
  static Activation at(const ByLayout& buffers, ActivationLayout layout, int rows, int columns);

  void embed(const Batch& batch);
  void store_kv(const LayerWeights& layer, const Batch& batch, const KvLayer& kv);
  void attention_block(const LayerWeights& layer, const Batch& batch, const KvLayer& kv);
  void ffn_block(const LayerWeights& layer, const LayerWeights* next, const Batch& batch);
  // residual += the meeting's sum; then norm(residual) in every layout that `reader` wants.
  void meet(const RowLinear& linear, const Activation& in, const MeetPlan& plan, int rows,
            const float* norm, const ColumnLinear* reader);
  void norm_into(const float* norm, absl::Span<const ActivationLayout> layouts, int rows);
  Inputs normed(int rows) const;
  int qkv_columns() const {
    return (attention_.num_heads + 2 * attention_.num_kv_heads) * spec_.head_dim;
  }
  // Goes on with the sampled tokens of a batch: as a batch of their own.
  Batch narrow(const Batch& batch);

  const ModelSpec& spec_;
  const ShardMap& shards_;
  const ModelWeights& weights_;
  Device& device_;
  Ops& ops_;
  Comm& comm_;
  const DecoderLimits limits_;
  const RankShard shard_;
  AttentionSpec attention_;
  MeetPlan attention_plan_;
  MeetPlan ffn_plan_;
  std::vector<int> vocab_columns_;   // by rank
  std::vector<TokenId> vocab_ends_;  // by rank
  int max_logit_rows_ = 1;

  DeviceBuffer cos_sin_;   // [max_positions][rope.dims / 2][2]
  DeviceBuffer residual_;  // [T][E]
  ByLayout normed_;        // [T][E]
  DeviceBuffer qkv_;       // [T][(Hl + 2 Gl) * D]
  ByLayout attended_;      // [T][Hl * D]
  DeviceBuffer gate_up_;   // [T][2 Fl]
  ByLayout gated_;         // [T][Fl]
  DeviceBuffer final_;     // [max_logit_rows][E], in the vocabulary's layout
  // The same of the sampled tokens, which the last layer goes on with.
  DeviceBuffer sampled_residual_;  // [samples][E]
  DeviceBuffer sampled_qkv_;       // [samples][(Hl + 2 Gl) * D]

  // Of the layer that is being enqueued, and of the last one for logits().
  float* residual_now_ = nullptr;
  float* qkv_now_ = nullptr;
  const std::int32_t* sample_tokens_ = nullptr;  // [num_samples], rows of residual_now_
};

}  // namespace quire
