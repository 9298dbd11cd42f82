// The device header: everything a kernel of ours may use beside plain C++. The same source compiles
// with nvcc for a GPU and with g++ for tests/cuda_emulation, where block threads are fibers on the
// CPU. Inline PTX and everything that only one of the two worlds knows lives in this folder, and
// nowhere else. The rules for kernels that run in both: tests/cuda_emulation/README.md.
#pragma once

#include "kernels/cuda/dev/async_copy.h"
#include "kernels/cuda/dev/convert.h"
#include "kernels/cuda/dev/launch.h"
#include "kernels/cuda/dev/memory.h"
#include "kernels/cuda/dev/mma.h"
#include "kernels/cuda/dev/platform.h"
#include "kernels/cuda/dev/reduce.h"
#include "kernels/cuda/dev/warp.h"
