// Runs CUDA attention (over the emulation) on the cases of tests/kernels/cases.h, without rotation:
// q, k and v as the harness of all backends draws them, K and V stored by a packer of this file, an
// arena whose unwritten bytes are NaN, blocks handed out in a scrambled order, and a workspace of
// NaN bytes of exactly the size that was asked for.
#pragma once

#include <vector>

#include "kernels/cuda/attention/attention_launch.h"
#include "tests/kernels/harness.h"

namespace quire::test {

// q, k and v of a token: a row of qkv, as the harness of all backends draws it.
std::vector<float> qkv_row(const AttentionCase& c, int sequence, int position);

// The case's result on the reference device, the whole prompt at once.
AttentionRun reference_attention(const AttentionCase& c);

struct CudaAttentionOptions {
  // partial_bytes 0: no row is cut into splits.
  cuda::AttentionLimits limits = {};
  // Rows without tokens at the end of every batch, and tokens of no row behind those: a batch
  // padded to the size of a captured graph. Nothing may be written for them.
  int padding_rows = 0;
  int padding_tokens = 0;
  int max_context = 0;       // 0: the longest row's
  bool as_graph = false;     // captured first, then launched
  float query_scale = 1.0f;  // what q is multiplied with
  // Sequence s begins with the first `positions` (whole blocks) of an earlier one: K and V of those
  // are the same, in the same blocks. Sequences without an entry are their own.
  struct Prefix {
    int sequence = 0;
    int positions = 0;
  };
  std::vector<Prefix> prefixes = {};
  bool tell_shared_runs = false;  // to the kernels, in the batch
  int filled_steps = 0;           // the first so many fill the arena and compute nothing
};
AttentionRun cuda_attention(const AttentionCase& c, const std::vector<Step>& steps,
                            ActivationLayout layout, const CudaAttentionOptions& options = {});

}  // namespace quire::test
