// The bf16 input of a library product whose weights are f16: one aligned load of eight a thread.
#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/piece.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    convert_pieces(const uint16_t* from, size_t pieces, uint16_t* to) {
  wait_for_previous_grid();
  const size_t piece =
      static_cast<size_t>(blockIdx.x) * kThreads + static_cast<size_t>(thread_rank());
  if (piece >= pieces) return;
  store16(to + kPiece * piece, pairs_as<f16>(load16(from + kPiece * piece)));
}

}  // namespace

cudaError_t to_f16(cudaStream_t stream, const void* from, std::size_t count, void* to) {
  if (count % kPiece != 0) return cudaErrorInvalidValue;
  const size_t pieces = count / kPiece;
  return launch_overlapped(
      convert_pieces, static_cast<unsigned>((pieces + kThreads - 1) / kThreads), kThreads, 0,
      stream, static_cast<const uint16_t*>(from), pieces, static_cast<uint16_t*>(to));
}

}  // namespace quire::cuda
