// The passes of sample() in order; see passes.h.
#include "kernels/cuda/sample/sample.h"

#include <algorithm>

#include "kernels/cuda/sample/passes.h"

namespace quire::cuda {
namespace {

bool is_valid(const SampleJob& job) {
  if (job.num_pieces < 1 || job.num_pieces > kMaxPieces || job.begin[0] != 0) return false;
  const int vocab = job.begin[job.num_pieces];
  return std::is_sorted(job.begin, job.begin + job.num_pieces + 1) && vocab >= 1 &&
         vocab <= kMaxSampleVocab;
}

}  // namespace

std::size_t sample_workspace_bytes(int max_rows, int vocab) {
  return sampling::counter_bytes(max_rows) +
         static_cast<std::size_t>(max_rows) * sampling::row_work_bytes(vocab);
}

std::size_t adjusted_bytes(int max_adjusts, int vocab) {
  return static_cast<std::size_t>(max_adjusts) * sampling::adjusted_stride(vocab) * sizeof(float);
}

cudaError_t sample(cudaStream_t stream, const SampleJob& job) {
  if (job.num_rows == 0) return cudaSuccess;
  if (!is_valid(job)) return cudaErrorInvalidValue;
  sampling::PassParams params = {};
  std::copy_n(job.pieces, job.num_pieces, params.pieces);
  std::copy_n(job.strides, job.num_pieces, params.strides);
  std::copy_n(job.begin, job.num_pieces + 1, params.begin);
  params.num_pieces = job.num_pieces;
  params.num_rows = job.num_rows;
  params.vocab = job.begin[job.num_pieces];
  params.wishes = job.rows;
  params.out = job.out;
  params.ids = job.ids;
  params.arrived = static_cast<std::uint32_t*>(job.workspace);
  params.work = static_cast<std::byte*>(job.workspace) + sampling::counter_bytes(job.num_rows);
  params.row_work_bytes = sampling::row_work_bytes(params.vocab);
  params.num_adjusts = job.num_adjusts;
  params.adjusts = job.adjusts;
  params.entries = job.entries;
  params.masks = job.masks;
  params.adjusted = job.adjusted;
  cudaError_t error =
      cudaMemsetAsync(params.arrived, 0, sampling::counter_bytes(job.num_rows), stream);
  if (error == cudaSuccess && job.num_adjusts > 0) error = sampling::launch_adjust(stream, params);
  if (error == cudaSuccess) error = sampling::launch_scan(stream, params);
  if (!job.may_filter) return error;
  for (const auto launch :
       {&sampling::launch_histogram, &sampling::launch_cut, &sampling::launch_resum}) {
    if (error == cudaSuccess) error = launch(stream, params);
  }
  return error;
}

}  // namespace quire::cuda
