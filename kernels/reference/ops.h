// The reference ops: each call records a closure, ReferenceDevice::wait() runs them in order.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "kernels/host_memory.h"
#include "kernels/ops.h"

namespace quire::reference {

using Task = std::function<absl::Status()>;

class ReferenceOps final : public Ops {
 public:
  ReferenceOps(std::optional<DType> kv_dtype, HostMemory& memory, std::vector<Task>& tasks)
      : kv_dtype_(kv_dtype.value_or(DType::kF32)), memory_(memory), tasks_(tasks) {}

  std::size_t activation_bytes(ActivationLayout layout, int rows, int columns) const override;
  std::size_t kv_block_bytes(DType dtype, int num_kv_heads, int head_dim,
                             int block_size) const override;
  DType kv_dtype(Format) const override { return kv_dtype_; }
  absl::StatusOr<Weight> pack(const MatrixSource& source) override;

  void embed(const Weight& table, TokenId first_id, const TokenId* tokens, int num_tokens,
             float* out) override;
  void rms_norm(const float* x, const std::int32_t* rows, int num_rows, int columns,
                const float* weight, float eps, const Activation& out) override;
  void linear(const Weight& weight, const Activation& in, const float* bias, float* out,
              std::size_t out_stride, std::size_t out_subtree_stride) override;
  void rope_store(float* qkv, const AttentionSpec& spec, const RopeSpec& rope, const float* cos_sin,
                  const Batch& batch, const KvLayer& kv) override;
  void copy_blocks(const KvBlocks& arena, absl::Span<const BlockId> from,
                   absl::Span<const BlockId> to) override;
  void attention(const float* qkv, const AttentionSpec& spec, const Batch& batch, const KvLayer& kv,
                 const Activation& out) override;
  void gated(Gate gate, const float* gate_up, int num_tokens, int ffn,
             const Activation& out) override;
  void combine(const CombineArgs& args) override;
  void select(absl::Span<const float* const> parts, absl::Span<const TokenId> ends,
              const TokenId* tokens, int rows, int columns, float* out) override;
  void take_rows(const float* x, const std::int32_t* rows, int num_rows, int columns,
                 float* out) override;
  void feed(TokenId* tokens, const std::int32_t* sources, const TokenId* ids,
            int num_tokens) override;
  void sample(const SampleArgs& args) override;

 private:
  // Records an op that cannot fail.
  template <class Fn>
  void enqueue(Fn fn) {
    tasks_.push_back([fn = std::move(fn)]() mutable {
      fn();
      return absl::OkStatus();
    });
  }

  const DType kv_dtype_;
  HostMemory& memory_;
  std::vector<Task>& tasks_;
};

// Row `row` of an activation the reference wrote or will write: [columns] floats.
float* activation_row(const Activation& a, int row);

// Address of K and V of one position of one local KV head: [D] floats each.
float* kv_key(const KvLayer& kv, BlockId block, int head, int offset);
float* kv_value(const KvLayer& kv, BlockId block, int head, int offset);

// Picks the token of one row given its V logits, and fills logprobs; see kernels/sampling.h.
void sample_row(const SampleRow& row, const std::vector<float>& logits, RowResult& result);

}  // namespace quire::reference
