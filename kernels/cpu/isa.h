// Which instruction sets this processor and its operating system can run, asked once by CPUID.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/cpu/linear.h"

namespace quire::cpu {

// The path for the option `isa`: "auto" (the best there is), "avx512", "avx512-vnni" or "avx2".
// NotFound names the missing feature flags; InvalidArgument an unknown name.
absl::StatusOr<Isa> choose_isa(const std::string& name);

}  // namespace quire::cpu
