// The tile shapes and formats of tile_mma.h.
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/tile_mma.h"

namespace quire::cuda {
namespace {

// Deep where the tile is small: about 24 KB of weights on their way.
using Tile16x32 = TileConfig<16, 32, 16, 8, 12>;
using Tile64x64 = TileConfig<64, 64, 32, 32, 5>;
using Tile128x128 = TileConfig<128, 128, 64, 32, 4>;

template <Format kFormat, bool kWhole>
cudaError_t choose_shape(cudaStream_t stream, TileShape shape, const LinearJob& job) {
  switch (shape) {
    case TileShape::k16x32:
      return launch_tiles<kFormat, kWhole, Tile16x32>(stream, job);
    case TileShape::k64x64:
      return launch_tiles<kFormat, kWhole, Tile64x64>(stream, job);
    case TileShape::k128x128:
      return launch_tiles<kFormat, kWhole, Tile128x128>(stream, job);
  }
  return cudaErrorInvalidValue;
}

template <Format kFormat>
cudaError_t choose_whole(cudaStream_t stream, TileShape shape, const LinearJob& job) {
  if constexpr (!is_block(kFormat)) {
    if (!has_whole_pieces(job)) return choose_shape<kFormat, false>(stream, shape, job);
  }
  return choose_shape<kFormat, true>(stream, shape, job);
}

}  // namespace

cudaError_t tile_mma(cudaStream_t stream, Format format, TileShape shape, const LinearJob& job) {
  switch (format) {
    case Format::kF16:
      return choose_whole<Format::kF16>(stream, shape, job);
    case Format::kBf16:
      return choose_whole<Format::kBf16>(stream, shape, job);
    case Format::kQ8_0:
      return choose_whole<Format::kQ8_0>(stream, shape, job);
    case Format::kQ4_0:
      return choose_whole<Format::kQ4_0>(stream, shape, job);
    case Format::kQ4_1:
      return choose_whole<Format::kQ4_1>(stream, shape, job);
    case Format::kF8E4M3:
      return choose_whole<Format::kF8E4M3>(stream, shape, job);
    case Format::kI8:
      return choose_whole<Format::kI8>(stream, shape, job);
    case Format::kQ4_Z:
      return choose_whole<Format::kQ4_Z>(stream, shape, job);
    case Format::kQ4_K:
      return choose_whole<Format::kQ4_K>(stream, shape, job);
    case Format::kQ5_K:
      return choose_whole<Format::kQ5_K>(stream, shape, job);
    case Format::kQ6_K:
      return choose_whole<Format::kQ6_K>(stream, shape, job);
    case Format::kF32:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
