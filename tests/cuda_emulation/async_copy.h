// cp.async: issued copies lie in the lane until a wait makes them happen. Between issue and wait
// the destination holds NaN bytes, so that who reads too early, and who copies over what is still
// being read, both see them.
#pragma once

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

void async_copy(void* shared, const void* global_or_null, uint32_t bytes);
void async_commit();
void async_wait(uint32_t pending_groups);

}  // namespace quire::cuda_emulation
