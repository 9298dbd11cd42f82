// Where the tests of the device take the fake NCCL over the emulation, here is the library.
#include <gtest/gtest.h>

#include "tests/fakes/fake_nccl.h"

namespace quire::test {

cuda::NcclApi fake_nccl() {
  const absl::StatusOr<cuda::NcclApi> api = cuda::load_nccl();
  EXPECT_TRUE(api.ok()) << api.status();
  return api.ok() ? *api : cuda::NcclApi{};
}

}  // namespace quire::test
