// The Ops of a GPU: each call checks what the kernels can do, launches them on the device's stream,
// and leaves errors to the queue. Numerics: README.md.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/linear/linear.h"
#include "kernels/cuda/memory_pool.h"
#include "kernels/cuda/queue.h"
#include "kernels/ops.h"

namespace quire::cuda {

class CudaOps final : public Ops {
 public:
  // float32: all arithmetic, activations and KV in fp32; else as the weights' formats want it.
  // `cache_folder`: see make_linear(). kv_dtype: as which K and V are stored, whatever else is.
  CudaOps(Queue& queue, Memories& memories, bool float32, bool deterministic,
          const std::string& cache_folder, std::optional<DType> kv_dtype);

  std::size_t activation_bytes(ActivationLayout layout, int rows, int columns) const override;
  std::size_t kv_block_bytes(DType dtype, int num_kv_heads, int head_dim,
                             int block_size) const override;
  DType kv_dtype(Format format) const override;
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

  // What follows belongs to the next step, which must not begin before the step before the one that
  // ends here is finished.
  void end_step();
  // After that step has run (0: the one begun, 1: the one ended last, 2: the one before): writes
  // what it picked where it was asked to. Returns the first call that launched nothing.
  absl::Status finish_step(int steps_ago);
  // After an error: what was picked is of no use.
  void drop_steps();

 private:
  const PackedMatrix& packed(const Weight& weight) const;
  void* attention_workspace(std::size_t bytes);
  void fail(const absl::Status& status);
  // Whether step memory had room for all that was taken; else the step fails.
  bool has_all(std::initializer_list<const void*> taken);

  Queue& queue_;
  Memories& memories_;
  const bool float32_;
  const std::optional<DType> kv_dtype_;
  std::unique_ptr<Linear> linear_;
  // By the weight's data: what its kernels need to know.
  std::unordered_map<const void*, PackedMatrix> matrices_;
  StepMemory device_step_, host_step_;
  std::vector<std::function<void()>> deliveries_[2];
  int current_ = 0;
  void* workspace_ = nullptr;  // of attention
  std::size_t workspace_bytes_ = 0;
  absl::Status error_;  // of a call that launched nothing
};

}  // namespace quire::cuda
