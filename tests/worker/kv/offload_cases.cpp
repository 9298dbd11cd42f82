#include "tests/worker/kv/offload_cases.h"

namespace quire::test {

std::vector<OffloadCase> offload_cases() {
  return {{"reference", false}, {"reference", true}, {"cpu", false}, {"cpu", true}};
}

}  // namespace quire::test
