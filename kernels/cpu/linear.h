// The CPU's matrix products: packing, and one function per ISA that computes a thread's share.
// Accumulation order of an output element depends only on (format, SumPlan): not on T, on the
// number of threads, nor on the tile it falls in.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/cpu/read_ahead.h"
#include "kernels/cpu/share.h"
#include "kernels/weight.h"

namespace quire::cpu {

// Each has the instructions of those before it: kAvx2 AVX2 FMA F16C; kAvx512Vnni AVX-512 F BW DQ VL
// and VNNI; kAvx512 AVX-512 BF16.
enum class Isa { kAvx2, kAvx512Vnni, kAvx512 };

// What the option `isa` calls it.
const char* name_of(Isa isa);

struct LinearArgs {
  const Weight* weight = nullptr;
  Activation in;
  const float* bias = nullptr;
  float* out = nullptr;
  std::size_t out_stride = 0;          // floats between tokens
  std::size_t out_subtree_stride = 0;  // floats between outputs of the SumPlan
  const Weight* next = nullptr;        // the matrix multiplied after this one, fetched ahead
  // Fetched ahead too, where threads divide the rows: what the attention before it reads for the
  // group of rows after the one at hand, and after the last group what the attention after it
  // reads for the first.
  AheadPart next_group = {};
  AheadPart next_attention = {};
};

// Bytes `pack` will write, and the layout of activations the weight will ask for. dtype "float32"
// forces kF32 activations for every format.
struct PackedShape {
  std::size_t bytes = 0;
  ActivationLayout input = ActivationLayout::kF32;
};
absl::StatusOr<PackedShape> packed_shape(const MatrixSource& source, Isa isa, bool float32);
// Fills weight.data (allocated by the caller, zeroed) from the source.
void pack(const MatrixSource& source, Isa isa, Weight& weight);

// Thread `thread` of `num_threads` computes its share, of N or of T; all of them must be called.
void linear(Isa isa, const LinearArgs& args, int thread, int num_threads);
// A run of the thread's share of the rows: all of it, or a group.
void linear_rows(Isa isa, const LinearArgs& args, Range run, const RowShares& shares, int thread);

// Decodes row n of a packed weight to fp32, for the embedding: out[columns].
void unpack_row(Isa isa, const Weight& weight, int n, float* out);

}  // namespace quire::cpu
