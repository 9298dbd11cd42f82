// Which checkpoints golden_test runs, over which devices: one list for the CPU's, one for the CUDA
// kernels over their emulation (cuda/golden_cases.cpp).
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/worker/harness.h"

namespace quire::test {

struct GoldenCase {
  std::string name;
  std::string folder;  // under data/models: the golden is beside the HF checkpoint
  std::string model;   // what is opened
  std::string device;
  int world = 1;
  double tolerance = 1e-3;  // |d logprob|
  DeviceOpener open_device = quire::open_device;
};

inline void PrintTo(const GoldenCase& c, std::ostream* out) {
  *out << c.name;
}

std::vector<GoldenCase> golden_cases();

}  // namespace quire::test
