// Twelve independent chains cover the latency of every instruction measured. AVX-512 only.
#include "bench/kernels/ceiling.h"

#include <immintrin.h>

namespace quire::bench {
namespace {

// Inline assembly, so that the compiler neither folds nor reorders what is being counted. Zero
// operands: no denormal or NaN on the way.
template <class Step>
void run_chains(long rounds, Step step) {
  __m512i sum[kInstructionsPerRound] = {};
  const __m512i zero = _mm512_setzero_si512();
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kInstructionsPerRound; ++i) step(sum[i], zero);
  }
}

}  // namespace

void run_fma(long rounds) {
  run_chains(rounds, [](__m512i& sum, __m512i x) {
    __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(sum) : "v"(x));
  });
}

void run_dpbf16(long rounds) {
  run_chains(rounds, [](__m512i& sum, __m512i x) {
    __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(sum) : "v"(x));
  });
}

void run_dpbusd(long rounds) {
  run_chains(rounds, [](__m512i& sum, __m512i x) {
    __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x));
  });
}

void read_memory(const std::byte* data, std::size_t bytes) {
  __m512i sum[4] = {};
  for (std::size_t i = 0; i + 256 <= bytes; i += 256) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + 64 * j + 4096), _MM_HINT_T1);
      sum[j] = _mm512_or_si512(sum[j], _mm512_load_si512(data + i + 64 * j));
    }
  }
  const __m512i all =
      _mm512_or_si512(_mm512_or_si512(sum[0], sum[1]), _mm512_or_si512(sum[2], sum[3]));
  __asm__ volatile("" : : "v"(all));
}

}  // namespace quire::bench
