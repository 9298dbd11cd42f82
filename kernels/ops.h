// The waist, part two: the operations a transformer is made of, at the grain where backends fuse.
// Pure virtual, no defaults. Every call enqueues on the device's stream; spans in argument structs
// are copied by the call, what they point at must live until wait(). Shapes are outermost first,
// letters as in common/model_spec.h; `l` marks a local (per-rank) size. All float buffers are fp32.
//
// Rows may run ahead of one another: from one call of wait() to the next a buffer keeps its row
// stride, and no row reads K and V that a token of another row stores.
//
// Rules every backend keeps (coordinator and tests rely on them): an output element is summed over
// K in one order whatever T is and however threads are divided; attention reads K and V from the
// arena only; masked positions enter as exact zero and their V is never multiplied.
#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model_spec.h"
#include "kernels/batch.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace quire {

// The combine half of a tensor-parallel meeting: for each token, add the partial sums by the tree,
// then bias and residual, write the new residual, and if `norm_weight` is set the RMS norm of it.
struct CombineArgs {
  // Post-order program over the tree: entry >= 0 pushes partials[entry], -1 adds the two top
  // entries of the stack (lower + upper). The program leaves one entry.
  absl::Span<const int> program;
  absl::Span<const float* const> partials;  // each [T][E]
  int rows = 0;                             // T
  int columns = 0;                          // E
  const float* bias = nullptr;              // [E] or null
  float* residual = nullptr;                // [T][E], read and written
  const float* norm_weight = nullptr;       // [E] or null
  float eps = 1e-5f;
  Activation out;  // [T][E], where norm_weight is set
};

class Ops {
 public:
  virtual ~Ops() = default;

  // --- layouts (not enqueued) ---
  virtual std::size_t activation_bytes(ActivationLayout layout, int rows, int columns) const = 0;
  virtual std::size_t kv_block_bytes(DType dtype, int num_kv_heads, int head_dim,
                                     int block_size) const = 0;
  // What `--dtype auto` stores K and V as when linears of `format` dominate.
  virtual DType kv_dtype(Format format) const = 0;
  // Copies a matrix into the backend's own layout; source memory may be unmapped afterwards.
  // InvalidArgument names a cut that splits a quantization block.
  virtual absl::StatusOr<Weight> pack(const MatrixSource& source) = 0;

  // --- operations (enqueued) ---
  // out[t] = row tokens[t] - first_id of `table`; rows of ids outside [first_id, first_id + N) are
  // left alone. The table may be the same Weight as the vocabulary linear (tied embeddings).
  virtual void embed(const Weight& table, TokenId first_id, const TokenId* tokens, int num_tokens,
                     float* out /* [T][E] */) = 0;
  // out = rms(x[rows[i]]) * weight; rows null means all of them in order. RMSNorm: arXiv
  // 1910.07467.
  virtual void rms_norm(const float* x, const std::int32_t* rows, int num_rows, int columns,
                        const float* weight, float eps, const Activation& out) = 0;
  // out[o][t][n] = sum over the o-th subtree of in[t][k] * weight[n][k] (+ bias[n]; bias only with
  // one output). out_stride: floats between tokens; subtrees are out_subtree_stride floats apart.
  virtual void linear(const Weight& weight, const Activation& in, const float* bias, float* out,
                      std::size_t out_stride, std::size_t out_subtree_stride) = 0;
  // Rotates q in place, rotates k and stores k and v into the arena. qkv: [T][(Hl + 2 Gl) * D];
  // what it holds afterwards is for attention() over the same arena alone. cos_sin:
  // [max_positions][rope.dims / 2][2].
  virtual void rope_store(float* qkv, const AttentionSpec& spec, const RopeSpec& rope,
                          const float* cos_sin, const Batch& batch, const KvLayer& kv) = 0;
  // In every layer, all of block from[i] to block to[i]; no block is on both sides, or twice in
  // `to`.
  virtual void copy_blocks(const KvBlocks& arena, absl::Span<const BlockId> from,
                           absl::Span<const BlockId> to) = 0;
  // Causal attention of every token over its row's blocks. q is the first Hl * D columns of qkv
  // (row stride (Hl + 2 Gl) * D). out: [T][Hl * D].
  virtual void attention(const float* qkv, const AttentionSpec& spec, const Batch& batch,
                         const KvLayer& kv, const Activation& out) = 0;
  // out = gate(gate_up[0 .. Fl)) * gate_up[Fl .. 2 Fl). gate_up: [T][2 Fl]. kGeluTanh is computed
  // as x * sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3), which is 0.5 x (1 + tanh(z)).
  virtual void gated(Gate gate, const float* gate_up, int num_tokens, int ffn,
                     const Activation& out) = 0;
  virtual void combine(const CombineArgs& args) = 0;
  // out[t] = parts[r][t], where rank r owns tokens[t]: the rows of a vocabulary-parallel embedding
  // put together. Rank r owns the ids from where rank r - 1 ends up to ends[r].
  virtual void select(absl::Span<const float* const> parts, absl::Span<const TokenId> ends,
                      const TokenId* tokens, int rows, int columns, float* out) = 0;
  // out[i] = x[rows[i]], bit for bit.
  virtual void take_rows(const float* x, const std::int32_t* rows, int num_rows, int columns,
                         float* out /* [num_rows][columns] */) = 0;
  // tokens[t] = ids[sources[t]] where sources[t] >= 0: picks that the host has not seen.
  virtual void feed(TokenId* tokens, const std::int32_t* sources, const TokenId* ids,
                    int num_tokens) = 0;
  // Picks one token per row; see sampling.h.
  virtual void sample(const SampleArgs& args) = 0;
};

}  // namespace quire
