// The library's own bf16 product, the peer and the ceiling of matrix products: cuBLASLt's first
// choice for the shape, with bf16 input and output as other engines use it (library_peer.cpp).
// Where no library runs (emulation: no_library_peer.cpp) there is none.
#pragma once

#include <memory>

#include "bench/kernels/cuda/measure.h"

namespace quire::bench {

class LibraryPeer {
 public:
  virtual ~LibraryPeer() = default;
  // out[t][n] = sum of in[t][k] * weight[n][k], all bf16. False: no algorithm for it.
  virtual bool prepare(int tokens, int rows, int columns) = 0;
  virtual cudaError_t run(cudaStream_t stream, const void* weight, const void* in, void* out) = 0;
};

std::unique_ptr<LibraryPeer> make_library_peer();  // null: there is none

}  // namespace quire::bench
