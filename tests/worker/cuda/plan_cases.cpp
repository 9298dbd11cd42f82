// Over the emulated GPU, with one kernel class whatever the number of rows: the bits of a row that
// is verified are then those of a row that is decoded.
#include "tests/worker/runner/plan_cases.h"

#include "tests/worker/cuda/emulated.h"

namespace quire::test {

std::vector<PlanCase> plan_cases() {
  PlanCase c;
  c.name = "cuda_2";
  c.options.device = "cuda";
  c.options.world = 2;
  c.options.limits.max_num_seqs = 8;
  c.options.open_device = [](DeviceOptions device) {
    device.deterministic = true;
    return open_emulated(device);
  };
  return {c};
}

}  // namespace quire::test
