// Matrix products and what stands in the same weights: packing, embedding rows.
//
// Numerics: an output element is summed over K in one order that depends on the weight's shape, its
// format and the chosen kernel class (few rows, many rows), never on its neighbours.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "common/format.h"
#include "common/ids.h"
#include "kernels/tensor.h"

namespace quire {
struct MatrixPart;  // kernels/weight.h
}

namespace quire::cuda {

struct Columns {
  int begin = 0;
  int end = 0;
};

// How a matrix lies in device memory. K is cut into `outputs` (the maximal subtrees this rank
// owns): output o is the sum over columns [outputs[o].begin, outputs[o].end).
struct PackedMatrix {
  Format format = Format::kF32;
  ActivationLayout input = ActivationLayout::kF32;  // kF32 or kBf16
  int rows = 0;                                     // N
  int columns = 0;                                  // K
  std::vector<Columns> outputs;
  const void* data = nullptr;  // device
  int first_column = 0;        // in its superblock, of the first of the K columns
};

// Device bytes of a packed N x K matrix.
std::size_t packed_bytes(Format format, int rows, int columns, int first_column = 0);
// Packs the rows of `part` (host, as in the file) as rows first_row ... of a matrix of
// `total_rows`, into `to` (host memory of packed_bytes()); what is uploaded then. False: a number
// is not one (f8_e4m3 only).
bool pack_rows(Format format, int columns, int first_column, const MatrixPart& part, int first_row,
               int total_rows, std::byte* to);
// The layout of the input of a linear layer: kF32 where the arithmetic is fp32, else kBf16.
ActivationLayout input_layout(Format format, bool float32);

// Kernels chosen once per shape, and what they need (cuBLASLt handle, workspace): one per device.
class Linear {
 public:
  virtual ~Linear() = default;
  // out[o][t][n] = sum over outputs[o] of in[t][k] * weight[n][k] (+ bias[n], only with one
  // output). out_stride: floats between tokens; outputs are out_subtree_stride floats apart.
  virtual cudaError_t run(cudaStream_t stream, const PackedMatrix& weight, const Activation& in,
                          const float* bias, float* out, std::size_t out_stride,
                          std::size_t out_subtree_stride) = 0;
  // Which kernel would run: for logs, benches and tests ("stream q4_1 m4", "cublaslt bf16 ...").
  virtual std::string describe(const PackedMatrix& weight, int rows) const = 0;
};
// `deterministic`: one kernel class per weight, whatever the number of rows. `cache_folder`: where
// choices that were measured are kept for the next start; empty: nowhere.
std::unique_ptr<Linear> make_linear(bool deterministic, const std::string& cache_folder = "");

// out[t] = row tokens[t] - first_id of `table`; other rows are left alone. tokens, out: device.
cudaError_t embed(cudaStream_t stream, const PackedMatrix& table, TokenId first_id,
                  const TokenId* tokens, int num_tokens, float* out);

}  // namespace quire::cuda
