// The CPU's ops: each call turns its arguments into one Command. A row of the batch belongs to one
// thread at a time and is computed by the same function whatever the batch, so results do not
// depend on the batch nor on the number of threads.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/cpu/attention_work.h"
#include "kernels/cpu/share.h"
#include "kernels/cpu/team.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/host_memory.h"
#include "kernels/ops.h"

namespace quire::cpu {

enum class Isa;
struct AheadWork;
struct LinearArgs;

// The row-wise functions that belong to an instruction set.
const VectorOps& vector_ops(Isa isa);

// The arithmetic class asked for by DeviceOptions::dtype.
enum class Arithmetic { kAuto, kFloat32, kBfloat16 };

class CpuOps final : public Ops {
 public:
  // kv_dtype: as which K and V are stored, whatever the weights are.
  CpuOps(Isa isa, Arithmetic arithmetic, std::optional<DType> kv_dtype, int num_threads,
         HostMemory& memory, std::vector<Command>& commands);

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
  // What is enqueued from here on follows nothing.
  void begin_list();

 private:
  // `may_be_grouped`: as in Command.
  void enqueue_rows(int rows, std::function<void(Range run, int thread)> by_rows,
                    bool may_be_grouped = true);
  template <class Fn>
  void enqueue(Fn fn) {
    commands_.push_back({.compute = std::move(fn)});
  }
  // Whether a command of these shares that may be grouped is done in the groups of an attention.
  bool joins_groups(const std::shared_ptr<const RowShares>& shares) const;
  // How threads divide so many rows: tokens of a batch by whole sequences, once they are known.
  const std::shared_ptr<const RowShares>& shares(int rows);
  // Enqueues what learns them.
  void know_sequences(const Batch& batch);

  const Isa isa_;
  const Arithmetic arithmetic_;
  const std::optional<DType> kv_dtype_;
  const int num_threads_;
  const VectorOps& vector_ops_;
  HostMemory& memory_;
  std::vector<Command>& commands_;
  AttentionScratch attention_scratch_;
  std::shared_ptr<LinearArgs> last_linear_;  // enqueued: learns which matrix follows
  // Of the products before the attention to come, and those in the groups of the last.
  std::shared_ptr<AheadWork> next_attention_;
  std::shared_ptr<AheadWork> next_group_;
  int rows_per_group_ = 6;                      // of all weights that are multiplied in groups
  std::shared_ptr<const RowShares> shares_;     // of the last command by rows
  std::shared_ptr<const RowShares> sequences_;  // of the batch, if they matter
};

RowTarget row_target(const Activation& activation);

}  // namespace quire::cpu
