// Runs CUDA attention (over the emulation) on the cases of tests/kernels/cases.h, without rotation:
// q, k and v as the harness of all backends draws them, K and V stored by a packer of this file, an
// arena whose unwritten bytes are NaN, blocks handed out in a scrambled order, and a workspace of
// NaN bytes of exactly the size that was asked for.
#pragma once

#include <vector>

#include "kernels/cuda/attention/attention_launch.h"
#include "tests/kernels/harness.h"

namespace quire::test {

// The case's result on the reference device, the whole prompt at once.
AttentionRun reference_attention(const AttentionCase& c);

// limits.partial_bytes 0: no row is cut into splits.
AttentionRun cuda_attention(const AttentionCase& c, const std::vector<Step>& steps,
                            ActivationLayout layout, const cuda::AttentionLimits& limits = {});

}  // namespace quire::test
