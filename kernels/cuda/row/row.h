// Launchers of the row-wise kernels: one row of fp32 in, one row out. All pointers are device
// memory unless said otherwise; every call enqueues on `stream` and returns the launch's error:
// cudaErrorInvalidValue for shapes that have no kernel (rows of more than 32,768 columns in norms,
// a combine program that is no tree or needs a stack deeper than 8, odd head or rope dims, kQ8).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/ids.h"
#include "common/model_spec.h"
#include "kernels/batch.h"
#include "kernels/tensor.h"

namespace quire::cuda {

// Partial sums of a row-parallel product put together; see CombineArgs in kernels/ops.h.
struct CombineJob {
  static constexpr int kMaxPartials = 64;
  static constexpr int kMaxProgram = 2 * kMaxPartials;
  std::int8_t program[kMaxProgram] = {};     // >= 0: push partials[i]; -1: add the two top ones
  int program_size = 0;                      // 0: nothing to add
  const float* partials[kMaxPartials] = {};  // each [T][E]
  int rows = 0;                              // T
  int columns = 0;                           // E
  const float* bias = nullptr;               // [E] or null
  float* residual = nullptr;                 // [T][E], read and written
  const float* norm_weight = nullptr;        // [E] or null
  float eps = 1e-5f;
  Activation out;  // [T][E], kF32 or kBf16, where norm_weight is set
};

struct RopeJob {
  float* qkv = nullptr;  // [T][(Hl + 2 Gl) * D]; q is rotated in place
  int num_heads = 0;     // Hl
  int num_kv_heads = 0;  // Gl
  int head_dim = 0;      // D
  int rope_dims = 0;
  bool interleaved = false;
  const float* cos_sin = nullptr;  // [max_positions][rope_dims / 2][2]
};

// Layout of a KV block on this device: K then V, each [Gl][S][D] in kv.dtype; where that is fp8,
// then their scales (kernels/kv_scale.h), each [Gl][S] bytes.
constexpr std::size_t kv_block_bytes(DType dtype, int num_kv_heads, int head_dim, int block_size) {
  return 2 * static_cast<std::size_t>(num_kv_heads) * static_cast<std::size_t>(block_size) *
         (static_cast<std::size_t>(head_dim) * size_of(dtype) + (dtype == DType::kF8E4M3 ? 1 : 0));
}

// out[i] = rms(x[rows[i]]) * weight; rows null: all in order.
cudaError_t rms_norm(cudaStream_t stream, const float* x, const std::int32_t* rows, int num_rows,
                     int columns, const float* weight, float eps, const Activation& out);
// See Ops::gated.
cudaError_t gated(cudaStream_t stream, Gate gate, const float* gate_up, int num_tokens, int ffn,
                  const Activation& out);
cudaError_t combine(cudaStream_t stream, const CombineJob& job);
// out[t] = parts[r][t] for the first r with tokens[t] < ends[r]; at most CombineJob::kMaxPartials
// parts (`parts` and `ends` are host memory).
cudaError_t select(cudaStream_t stream, const float* const* parts, const TokenId* ends,
                   int num_parts, const TokenId* tokens, int rows, int columns, float* out);
// out[i] = x[rows[i]].
cudaError_t take_rows(cudaStream_t stream, const float* x, const std::int32_t* rows, int num_rows,
                      int columns, float* out);
// tokens[t] = ids[sources[t]] where sources[t] >= 0.
cudaError_t feed(cudaStream_t stream, TokenId* tokens, const std::int32_t* sources,
                 const TokenId* ids, int num_tokens);
// Rotates q in place, rotates k, stores k and v into the arena.
cudaError_t rope_store(cudaStream_t stream, const RopeJob& job, const Batch& batch,
                       const KvLayer& kv);
// Block `from[i]` to block `to[i]`, all layers: copy-on-write. from and to: device, [count].
cudaError_t copy_blocks(cudaStream_t stream, std::byte* arena, std::size_t block_bytes,
                        const BlockId* from, const BlockId* to, int count);

}  // namespace quire::cuda
