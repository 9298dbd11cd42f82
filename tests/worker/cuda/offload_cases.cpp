#include "tests/worker/kv/offload_cases.h"

#include "tests/worker/cuda/emulated.h"

namespace quire::test {

std::vector<OffloadCase> offload_cases() {
  return {{"cuda", false, open_emulated}, {"cuda", true, open_emulated}};
}

}  // namespace quire::test
