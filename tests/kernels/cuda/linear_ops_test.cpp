// The shared cases of matrix products on the CUDA device, through Ops, against the reference.
#include "kernels/cuda/device.h"
#include "kernels/cuda/linear/layout.h"
#include "tests/cuda_emulation/control.h"
#include "tests/fakes/fake_nccl.h"
#include "tests/kernels/linear_cases.h"

namespace quire::test {
namespace {

struct Arithmetic {
  const char* dtype;
  bool deterministic;
};

class CudaLinearOps : public testing::TestWithParam<Format> {
 protected:
  static std::unique_ptr<Device> open(const Arithmetic& arithmetic) {
    DeviceOptions options;
    options.kind = "cuda";
    options.dtype = arithmetic.dtype;
    options.deterministic = arithmetic.deterministic;
    auto device = cuda::open_cuda(options, [] { return fake_nccl(); });
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
};

// Many tokens on tensor cores: weights of block formats are rounded to bf16.
TEST_P(CudaLinearOps, GiveWhatTheReferenceGives) {
  const auto reference = open_backend("reference");
  for (const Arithmetic& arithmetic :
       {Arithmetic{"auto", false}, Arithmetic{"auto", true}, Arithmetic{"float32", false}}) {
    const auto device = open(arithmetic);
    ASSERT_NE(device, nullptr);
    for (const LinearOpCase& c : linear_cases()) {
      if (!c.fits(GetParam())) continue;
      const bool rounds = cuda::is_block(GetParam()) && arithmetic.dtype == std::string("auto") &&
                          (arithmetic.deterministic || c.tokens > 16);
      cuda_emulation::set_seed(static_cast<unsigned>(c.tokens));
      expect_case(*device, *reference, c, GetParam(), rounds ? 0x1p-8 : 2e-5);
    }
  }
}

TEST_P(CudaLinearOps, EmbedTheFormatsValues) {
  const auto device = open({"auto", false});
  ASSERT_NE(device, nullptr);
  expect_rows(*device, StoredMatrix(GetParam(), 45, 288, 3, cuda::is_superblock(GetParam()) * 160));
}

INSTANTIATE_TEST_SUITE_P(All, CudaLinearOps, testing::ValuesIn(all_formats()),
                         [](const auto& format) { return traits(format.param).name; });

}  // namespace
}  // namespace quire::test
