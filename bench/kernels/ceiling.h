// What this machine can do at most, measured in the same run as the kernels: rates of the
// instructions they are made of, and of reading memory.
#pragma once

#include <cstddef>

namespace quire::bench {

// Multiply-adds of one instruction, counted as two operations each.
inline constexpr double kOpsPerFma = 32;
inline constexpr double kOpsPerDpbf16 = 64;
inline constexpr double kOpsPerDpbusd = 128;

// Each runs `rounds` times 12 independent instructions.
void run_fma(long rounds);
void run_dpbf16(long rounds);
void run_dpbusd(long rounds);
inline constexpr int kInstructionsPerRound = 12;

// Reads every line of [data, data + bytes).
void read_memory(const std::byte* data, std::size_t bytes);

}  // namespace quire::bench
