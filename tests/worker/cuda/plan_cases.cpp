// Over the emulated GPU, with one kernel class whatever the number of rows: the bits of a row that
// is verified are then those of a row that is decoded.
#include "tests/worker/runner/plan_cases.h"

#include "tests/worker/cuda/emulated.h"

namespace quire::test {

std::vector<PlanCase> plan_cases() {
  std::vector<PlanCase> cases;
  for (const int world : {1, 2}) {
    PlanCase& c = cases.emplace_back();
    c.name = "cuda_" + std::to_string(world);
    c.options.device = "cuda";
    c.options.world = world;
    c.options.limits.max_num_seqs = 8;
    c.options.open_device = [](DeviceOptions device) {
      device.deterministic = true;
      return open_emulated(device);
    };
  }
  return cases;
}

}  // namespace quire::test
