// The table of the library's algorithms without the library: what it is keyed by, what is timed,
// what is kept, what a file may do to it. Times are made up.
#include "kernels/cuda/linear/lt_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace quire::test {
namespace {

using cuda::LtAlgorithm;
using cuda::LtShape;
using cuda::LtTable;

constexpr char kGpu[] = "NVIDIA H100 80GB HBM3";
constexpr char kLibrary[] = "130101";

LtAlgorithm algorithm(std::uint64_t id) {
  return {id, 0xffffffffffffffffu, 3, 4, 5, 6, 7, 0};
}

LtShape shape_of(int bucket, Format format = Format::kBf16) {
  LtShape shape;
  shape.format = format;
  shape.bucket = bucket;
  shape.rows = 4096;
  shape.columns = 14336;
  shape.weight_stride = 14336;
  shape.out_stride = 4096;
  shape.has_bias = bucket == 64;
  shape.weight_alignment = 256;
  return shape;
}

// A library of algorithms 1, 2, ... with these times; negative: does not run.
struct FakeLibrary {
  std::vector<double> times;
  bool fits = true;
  std::vector<std::uint64_t> timed = {};

  cuda::LtProbe probe() {
    return {[this](const LtAlgorithm&) { return fits; },
            [this] {
              std::vector<LtAlgorithm> all;
              for (std::size_t i = 1; i <= times.size(); ++i) all.push_back(algorithm(i));
              return all;
            },
            [this](const LtAlgorithm& a) -> std::optional<double> {
              timed.push_back(a[0]);
              const double time = times.at(a[0] - 1);
              return time < 0 ? std::nullopt : std::optional(time);
            }};
  }
};

class LtTableTest : public testing::Test {
 protected:
  LtTableTest() : folder_(testing::TempDir() + "lt_table_" + std::to_string(getpid())) {
    std::filesystem::remove_all(folder_);
  }
  ~LtTableTest() override { std::filesystem::remove_all(folder_); }

  LtTable open(const std::string& gpu = kGpu, const std::string& library = kLibrary) {
    return {folder_, gpu, library, [this](const std::string& text) { log_.push_back(text); }};
  }
  static std::uint64_t id(const cuda::LtChoice* choice) {
    return choice == nullptr ? 0 : choice->algorithm[0];
  }
  // A table's file with one row for bucket 32: algorithm 2.
  std::string path_with_a_row() {
    LtTable table = open();
    FakeLibrary library{{5.0, 4.0}};
    table.choose(shape_of(32), library.probe(), true);
    return table.path();
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  const std::string folder_;
  std::vector<std::string> log_;
};

TEST_F(LtTableTest, KeepsTheFastestThatRuns) {
  LtTable table = open();
  FakeLibrary library{{9.0, -1.0, 2.5, 2.5, 7.0}};
  EXPECT_EQ(table.find(shape_of(32)), nullptr);
  EXPECT_FALSE(table.knows(shape_of(32)));
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 3u);
  EXPECT_THAT(library.timed, testing::ElementsAre(1, 2, 3, 4, 5));
  library.times = {1.0};
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 3u) << "chosen once";
  EXPECT_EQ(id(table.find(shape_of(32))), 3u);
  LtShape elsewhere = shape_of(32);
  elsewhere.out_alignment = 4;
  EXPECT_EQ(table.find(elsewhere), nullptr);
  EXPECT_EQ(id(table.find_like(elsewhere)), 3u);
  FakeLibrary refuses{{-1.0, -1.0}};
  EXPECT_EQ(table.choose(shape_of(64), refuses.probe(), true), nullptr);
  refuses.times = {1.0};
  EXPECT_EQ(table.choose(shape_of(64), refuses.probe(), true), nullptr) << "asked once";
  EXPECT_TRUE(table.knows(shape_of(64)));
}

TEST_F(LtTableTest, TheNextStartReadsWhatThisOneMeasured) {
  FakeLibrary library{{3.0, 1.0, 2.0}};
  {
    LtTable table = open();
    table.choose(shape_of(32), library.probe(), true);
    library.times = {0.5, 1.0};
    table.choose(shape_of(64), library.probe(), true);
    table.choose(shape_of(64, Format::kF16), library.probe(), true);
  }
  LtTable table = open();
  FakeLibrary other{{8.0, 9.0, 1.0}};
  const cuda::LtChoice* choice = table.choose(shape_of(32), other.probe(), true);
  ASSERT_NE(choice, nullptr);
  EXPECT_EQ(choice->algorithm, algorithm(2));
  EXPECT_EQ(choice->microseconds, 1.0);
  EXPECT_EQ(id(table.choose(shape_of(64), other.probe(), true)), 1u);
  EXPECT_EQ(id(table.choose(shape_of(64, Format::kF16), other.probe(), true)), 1u);
  EXPECT_TRUE(other.timed.empty());
  EXPECT_EQ(id(table.choose(shape_of(128), other.probe(), true)), 3u) << "not in the file";
  EXPECT_TRUE(log_.empty());
}

TEST_F(LtTableTest, AnotherGpuOrLibraryHasAFileOfItsOwn) {
  const std::string path = path_with_a_row();
  EXPECT_NE(open("NVIDIA H200").path(), path);
  EXPECT_NE(open(kGpu, "130200").path(), path);
  // The same bytes under another's name are foreign.
  LtTable other = open("NVIDIA H200");
  std::filesystem::copy_file(path, other.path());
  EXPECT_TRUE(log_.empty());
  LtTable again = open("NVIDIA H200");
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_THAT(log_[0], testing::HasSubstr("it was made for NVIDIA H100 80GB HBM3"));
  FakeLibrary library{{1.0, 2.0}};
  EXPECT_EQ(id(again.choose(shape_of(32), library.probe(), true)), 1u);
}

TEST_F(LtTableTest, ADamagedFileIsIgnoredAndWrittenAnew) {
  const std::string path = path_with_a_row();
  const std::string good = read(path);
  std::string changed = good;
  changed[good.find(" 4096 ") + 1] = '5';
  for (const std::string& bad :
       {std::string(), std::string("\n"), good.substr(0, good.size() / 2),
        good.substr(0, good.size() - 1), changed, good + "x\n", std::string(5000, '\xff')}) {
    write(path, bad);
    log_.clear();
    LtTable table = open();
    ASSERT_EQ(log_.size(), 1u) << bad;
    EXPECT_THAT(log_[0], testing::HasSubstr("it is damaged"));
    FakeLibrary library{{1.0, 2.0}};
    EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 1u);
    EXPECT_EQ(id(open().choose(shape_of(32), FakeLibrary{}.probe(), true)), 1u);
    EXPECT_EQ(log_.size(), 1u) << "the new file is whole";
  }
}

TEST_F(LtTableTest, RanksThatShareAFileKeepEachOthersRows) {
  LtTable one = open();
  LtTable two = open();
  FakeLibrary library{{1.0}};
  one.choose(shape_of(32), library.probe(), true);
  two.choose(shape_of(64), library.probe(), true);
  FakeLibrary slower{{4.0, 3.0}};
  two.choose(shape_of(32), slower.probe(), true);
  LtTable next = open();
  EXPECT_EQ(id(next.choose(shape_of(32), slower.probe(), true)), 1u) << "who came first";
  EXPECT_EQ(id(next.choose(shape_of(64), slower.probe(), true)), 1u);
}

TEST_F(LtTableTest, WhatTheLibraryRefusesIsMeasuredAgain) {
  path_with_a_row();
  LtTable table = open();
  FakeLibrary library{{1.0, 2.0}};
  library.fits = false;
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 1u);
  library.fits = true;
  EXPECT_EQ(id(open().choose(shape_of(32), library.probe(), true)), 1u) << "the row was replaced";
}

TEST_F(LtTableTest, NothingIsTimedWhileAStreamIsCaptured) {
  FakeLibrary library{{3.0, 1.0}};
  LtTable table = open();
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), false)), 1u);
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 1u) << "kept all the same";
  EXPECT_TRUE(library.timed.empty());
  table.choose(shape_of(64), library.probe(), true);
  EXPECT_EQ(id(open().choose(shape_of(32), library.probe(), true)), 2u) << "not in the file";
}

TEST_F(LtTableTest, WithoutAFolderNothingIsWritten) {
  LtTable table("", kGpu, kLibrary, [this](const std::string& text) { log_.push_back(text); });
  FakeLibrary library{{1.0}};
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 1u);
  EXPECT_FALSE(std::filesystem::exists(folder_));
}

TEST_F(LtTableTest, AFolderThatCannotBeWrittenIsTold) {
  write(folder_, "a file, not a folder");
  LtTable table = open();
  FakeLibrary library{{1.0}};
  EXPECT_EQ(id(table.choose(shape_of(32), library.probe(), true)), 1u);
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_THAT(log_[0], testing::HasSubstr("cannot write"));
}

TEST(LtShapeTest, NamesBucketAndAlignments) {
  EXPECT_EQ(cuda::lt_bucket(17), 32);
  EXPECT_EQ(cuda::lt_bucket(32), 32);
  EXPECT_EQ(cuda::lt_bucket(33), 64);
  EXPECT_EQ(cuda::lt_bucket(2048), 2048);
  cuda::LinearJob job;
  job.data = reinterpret_cast<const std::byte*>(std::size_t{4096});
  job.in = reinterpret_cast<const void*>(std::size_t{8192});
  job.out = reinterpret_cast<float*>(std::size_t{16384});
  job.rows = 512;
  job.columns = 1032;
  job.tokens = 40;
  job.out_stride = 513;
  job.out_subtree_stride = 40 * 513;
  job.num_outputs = 2;
  job.outputs[0] = {0, 1024};
  job.outputs[1] = {1024, 1032};
  const cuda::LtShape first = cuda::lt_shape(Format::kBf16, job, 0);
  EXPECT_EQ(first.bucket, 64);
  EXPECT_EQ(first.columns, 1024);
  EXPECT_EQ(first.weight_stride, 1032);
  EXPECT_EQ(first.weight_alignment, 16u);  // of rows 2,064 bytes apart
  EXPECT_EQ(first.out_alignment, 4u);
  job.columns = 1024;
  job.out_stride = 512;
  job.out_subtree_stride = 40 * 512;
  job.outputs[0] = {0, 504};
  job.outputs[1] = {504, 1024};
  EXPECT_EQ(cuda::lt_shape(Format::kBf16, job, 0).weight_alignment, 256u);
  EXPECT_EQ(cuda::lt_shape(Format::kBf16, job, 1).input_alignment, 16u);
  EXPECT_EQ(cuda::lt_shape(Format::kBf16, job, 1).out_alignment, 256u);
  EXPECT_NE(cuda::lt_shape(Format::kF16, job, 0), cuda::lt_shape(Format::kBf16, job, 0));
  EXPECT_NE(cuda::lt_shape(Format::kBf16, job, 0), cuda::lt_shape(Format::kBf16, job, 1));
}

}  // namespace
}  // namespace quire::test
