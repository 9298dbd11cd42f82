#include "tests/worker/runner/plan_cases.h"

namespace quire::test {

std::vector<PlanCase> plan_cases() {
  std::vector<PlanCase> cases;
  for (const char* device : {"cpu", "reference"}) {
    for (const int world : {1, 2}) {
      if (world > 1 && device == std::string("reference")) continue;  // it is slow on purpose
      PlanCase& c = cases.emplace_back();
      c.name = device + std::string("_") + std::to_string(world);
      c.options.device = device;
      c.options.world = world;
      c.options.limits.max_num_seqs = 8;
    }
  }
  return cases;
}

}  // namespace quire::test
