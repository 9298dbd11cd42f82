// The barrier of ranks that see each other's memory: each has a word per rank, into which that rank
// writes how often it has met.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace quire::cuda {

struct PeerMeet {
  static constexpr int kMaxRanks = 64;
  // A rank's words lie this far apart, so that ranks do not write the same line; the own count is
  // one place after the last.
  static constexpr int kWordsApart = 32;
  static constexpr std::size_t kBytes = (kMaxRanks + 1) * kWordsApart * sizeof(std::uint32_t);

  int rank = 0;
  int world = 1;
  std::uint32_t* words[kMaxRanks] = {};  // of every rank; words[rank] is our own memory
  const std::uint32_t* abort_word = nullptr;
};

// Returns the launch's error. The count is kept on the device: a graph may replay it.
cudaError_t peer_meet(cudaStream_t stream, const PeerMeet& meet);

}  // namespace quire::cuda
