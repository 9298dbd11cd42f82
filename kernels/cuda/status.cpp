#include "kernels/cuda/status.h"

#include "absl/strings/str_cat.h"

namespace quire::cuda {

absl::Status to_status(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": CUDA says ", cudaGetErrorName(error), " (",
                                        cudaGetErrorString(error), ")");
  if (error == cudaErrorInvalidValue || error == cudaErrorInvalidConfiguration) {
    return absl::InternalError(text);
  }
  return absl::ResourceExhaustedError(text);
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) != cudaSuccess ||
         status != cudaStreamCaptureStatusNone;
}

}  // namespace quire::cuda
