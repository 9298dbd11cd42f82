// main() of the tests that need a GPU: exits with 77 and a sentence where there is none, and leaves
// out what the same sources test of the emulation and its doubles. A name here that no test has is
// a failure, so the list cannot outlive what it names. --gtest_list_tests works anywhere.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace {

struct LeftOut {
  const char* test;
  const char* why;
};

constexpr LeftOut kLeftOut[] = {
    {"CudaLinearChoiceTest.SaysWhatItRuns", "names the double that stands in for cuBLASLt"},
    {"CudaLinearChoiceTest.TakesItsOwnKernelWhereTheLibraryRefuses",
     "relies on what that double refuses"},
};
constexpr int kSkipped = 77;

bool exists(const std::string& name) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      if (name == std::string(suite.name()) + "." + suite.GetTestInfo(t)->name()) return true;
    }
  }
  return false;
}

bool has_suite_of(const std::string& name) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    if (name.rfind(std::string(all.GetTestSuite(s)->name()) + ".", 0) == 0) return true;
  }
  return false;
}

// False: the list names a test of a suite in this program that the suite does not have.
bool leave_out() {
  std::string filter = GTEST_FLAG_GET(filter);
  filter += filter.find('-') == std::string::npos ? "-" : ":";
  for (const LeftOut& each : kLeftOut) {
    if (!has_suite_of(each.test)) continue;
    if (!exists(each.test)) {
      std::fprintf(stderr, "gpu_main.cpp leaves out %s, which does not exist\n", each.test);
      return false;
    }
    std::printf("left out: %s (%s)\n", each.test, each.why);
    filter += std::string(each.test) + ":";
  }
  GTEST_FLAG_SET(filter, filter);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  if (!leave_out()) return 1;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::printf("skipped: no GPU here (%s)\n", cudaGetErrorName(error));
    return kSkipped;
  }
  cudaDeviceProp properties = {};
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    std::printf("on %s, sm_%d%d\n", properties.name, properties.major, properties.minor);
  }
  return RUN_ALL_TESTS();
}
