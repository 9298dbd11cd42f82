// One block, one thread per rank: tell rank t that we have come, then wait until rank t has. What
// earlier kernels of the stream wrote is released with the word; what later ones read was acquired.
#include "kernels/cuda/collective/peer_meet.h"
#include "kernels/cuda/dev/launch.h"
#include "kernels/cuda/dev/memory.h"

namespace quire::cuda {
namespace {

// Between two looks at the abort word, which lies in host memory.
constexpr int kSpins = 64;

__global__ void meet_kernel(const __grid_constant__ PeerMeet p) {
  std::uint32_t* const own = p.words[p.rank];
  std::uint32_t* const count = own + PeerMeet::kMaxRanks * PeerMeet::kWordsApart;
  const std::uint32_t round = *count + 1;
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer == 0) *count = round;
  if (peer >= p.world) return;
  fence_sys();
  store_release_sys(p.words[peer] + p.rank * PeerMeet::kWordsApart, round);
  const std::uint32_t* const word = own + peer * PeerMeet::kWordsApart;
  // The count may wrap: the difference does not.
  for (int spin = 1; static_cast<std::int32_t>(load_acquire_sys(word) - round) < 0; ++spin) {
    if (spin % kSpins == 0 && load_acquire_sys(p.abort_word) != 0) return;
    spin_pause();
  }
}

}  // namespace

cudaError_t peer_meet(cudaStream_t stream, const PeerMeet& meet) {
  const int threads = (meet.world + kWarpSize - 1) / kWarpSize * kWarpSize;
  return launch(meet_kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, stream, meet);
}

}  // namespace quire::cuda
