// The command line that the benchmarks of matrix products have in common, as --NAME=VALUE.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/format.h"
#include "kernels/cpu/linear.h"

namespace quire::bench {

struct LinearOptions {
  std::string shapes;  // a part of a model's name
  std::vector<Format> formats;
  std::vector<int> tokens;
  int threads = 1;
  int samples = 5;
  cpu::Isa isa = cpu::Isa::kAvx2;  // unless named: the best there is
  bool cpu_time = false;           // of the one thread, instead of the wall's
};

// A program's own flags: whether it knows `name` and `value` is one.
using OwnFlag = std::function<bool(const std::string& name, const std::string& value)>;

// `defaults` with what argv says. InvalidArgument has the sentence for the user.
absl::StatusOr<LinearOptions> parse_linear_options(int argc, char** argv, LinearOptions defaults,
                                                   const OwnFlag& own);

}  // namespace quire::bench
