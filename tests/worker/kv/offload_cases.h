// Over which devices offload_test runs: one list for the CPU's, one for the CUDA kernels over their
// emulation (tests/worker/cuda/offload_cases.cpp).
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/worker/harness.h"

namespace quire::test {

struct OffloadCase {
  std::string device;
  bool in_file = false;
  DeviceOpener open_device = quire::open_device;
};

inline void PrintTo(const OffloadCase& c, std::ostream* out) {
  *out << c.device << (c.in_file ? ", file" : ", memory");
}

std::vector<OffloadCase> offload_cases();

inline std::vector<OffloadCase> offload_file_cases() {
  std::vector<OffloadCase> cases = offload_cases();
  std::erase_if(cases, [](const OffloadCase& c) { return !c.in_file; });
  return cases;
}

}  // namespace quire::test
