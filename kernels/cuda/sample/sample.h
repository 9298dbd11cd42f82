// Picks tokens on the device, so that only ids (and asked-for logprobs) go back. Semantics and
// order of the filters: kernels/sampling.h and kernels/reference/sample.cpp; same Philox draws.
// The algorithm: passes.h. NaN logits count as -infinity; where the largest logit is infinite, the
// row is greedy.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "common/ids.h"

namespace quire::cuda {

constexpr int kMaxBest = 32;  // kMaxRowLogprobs of common/sampling_params.h
constexpr int kMaxPieces = 64;
constexpr int kMaxSampleVocab = 1 << 19;

// One row's wishes: the fields of SampleRow (kernels/sampling.h), for headers that nvcc reads.
struct SampleWish {
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  std::int32_t top_k = 0;
  std::uint64_t seed = 0;
  std::uint32_t sample_index = 0;
  std::uint32_t position = 0;
  std::int32_t num_logprobs = -1;
  std::int32_t adjust = -1;  // which of SampleJob::adjusts; -1: none
};

// LogitEntry and LogitAdjustment of kernels/sampling.h.
struct AdjustEntry {
  TokenId token = 0;
  float bias = 0.0f;
  std::int32_t count = -1;
};
struct RowAdjust {
  std::int32_t row = -1;  // -1: none; so a captured launch has the same shape every step
  std::int32_t first_entry = 0;
  std::int32_t num_entries = 0;
  std::int32_t mask = -1;  // which of SampleJob::masks; -1: all ids are allowed
  float repetition = 1.0f;
  float frequency = 0.0f;
  float presence = 0.0f;
};

// What one row gives back.
struct SampledRow {
  TokenId token = 0;
  float token_logprob = 0.0f;
  int num_best = 0;  // filled entries of best*
  TokenId best[kMaxBest] = {};
  float best_logprob[kMaxBest] = {};
};

// Logits as in kernels/sampling.h: piece p covers ids [begin[p], begin[p + 1]).
struct SampleJob {
  int num_rows = 0;
  const SampleWish* rows = nullptr;  // device, [B]
  int num_pieces = 0;
  const float* pieces[kMaxPieces] = {};  // device
  std::size_t strides[kMaxPieces] = {};  // floats between rows
  TokenId begin[kMaxPieces + 1] = {};
  SampledRow* out = nullptr;  // device, [B]
  TokenId* ids = nullptr;     // device, [B]: the picks alone; or null
  void* workspace = nullptr;  // device, 16-byte aligned
  // Rows that are adjusted are copied first: logits may be a peer's, which reads them too.
  int num_adjusts = 0;
  const RowAdjust* adjusts = nullptr;    // device
  const AdjustEntry* entries = nullptr;  // device
  const std::uint32_t* masks = nullptr;  // device, each [V / 32 rounded up]
  float* adjusted = nullptr;             // device, 16-byte aligned, adjusted_bytes()
  // False promises that no row has top_k, top_p or min_p: one kernel instead of four.
  bool may_filter = true;
};

// At least for max_rows rows; a call writes what it needs, and leaves nothing for the next.
std::size_t sample_workspace_bytes(int max_rows, int vocab);
std::size_t adjusted_bytes(int max_adjusts, int vocab);
cudaError_t sample(cudaStream_t stream, const SampleJob& job);

}  // namespace quire::cuda
