// The size of the KV cache, the place of a rank without MPI, and exit codes.
#include "worker/session/capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/device.h"
#include "worker/session/exit_code.h"
#include "worker/session/process_group.h"

namespace quire {
namespace {

using testing::HasSubstr;

CapacityInputs inputs() {
  CapacityInputs in;
  in.block_bytes = 1000;
  in.block_size = 16;
  in.max_num_seqs = 4;
  in.max_model_len = 8192;
  in.free_bytes = 100'000'000;
  return in;
}

TEST(Capacity, EnoughForTheSequencesThatMayRun) {
  const auto capacity = choose_capacity(inputs());
  ASSERT_TRUE(capacity.ok());
  EXPECT_EQ(capacity->blocks, 4 * 2048 / 16);
  EXPECT_THAT(capacity->reason, HasSubstr("4 sequences of 2048 tokens"));
}

TEST(Capacity, ALongestSequenceFits) {
  CapacityInputs in = inputs();
  in.max_num_seqs = 1;
  EXPECT_EQ(choose_capacity(in)->blocks, 8192 / 16);
}

TEST(Capacity, AtMostAShareOfFreeMemory) {
  CapacityInputs in = inputs();
  in.free_bytes = 400'000;
  const auto quarter = choose_capacity(in);
  EXPECT_EQ(quarter->blocks, 100);
  EXPECT_THAT(quarter->reason, HasSubstr("25 % of this rank's"));
  in.share = 0.9;
  EXPECT_EQ(choose_capacity(in)->blocks, 360);
}

TEST(Capacity, AsTold) {
  CapacityInputs in = inputs();
  in.kv_cache_memory_bytes = 5'500;
  EXPECT_EQ(choose_capacity(in)->blocks, 5);
  in.kv_cache_memory_bytes = 999;
  const auto none = choose_capacity(in);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("--kv-cache-memory-bytes"));
}

TEST(Capacity, NoMoreThanIsFree) {
  CapacityInputs in = inputs();
  in.kv_cache_memory_bytes = in.free_bytes;
  EXPECT_TRUE(choose_capacity(in).ok());
  ++in.kv_cache_memory_bytes;
  const auto more = choose_capacity(in);
  EXPECT_EQ(more.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(more.status().message()), HasSubstr("on every rank"));
}

TEST(Capacity, RanksOfAHostShareItsMemory) {
  DeviceOptions options;
  options.kind = "reference";
  const auto alone = open_device(options);
  options.num_local_ranks = 4;
  const auto shared = open_device(options);
  const std::int64_t all = (*alone)->free_bytes();
  EXPECT_GT((*shared)->free_bytes(), 0);
  EXPECT_LT((*shared)->free_bytes(), all / 2);
}

TEST(ProcessGroup, ByHand) {
  EngineConfig config;
  config.rank = 1;
  config.world_size = 3;
  auto group = ProcessGroup::open(config);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("--instance-id"));
  config.instance_id = "abc";
  group = ProcessGroup::open(config);
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ((*group)->place().rank, 1);
  EXPECT_EQ((*group)->place().num_local_ranks, 3);
  EXPECT_EQ((*group)->instance_id(), "abc");
  config.instance_id = "../abc";
  EXPECT_THAT(std::string(ProcessGroup::open(config).status().message()), HasSubstr("../abc"));
  config.instance_id = "abc";
  config.rank = 3;
  EXPECT_THAT(std::string(ProcessGroup::open(config).status().message()), HasSubstr("--rank 3"));
}

TEST(ProcessGroup, AloneItNamesItself) {
  EngineConfig config;
  config.rank = 0;
  config.world_size = 1;
  const auto one = ProcessGroup::open(config);
  const auto two = ProcessGroup::open(config);
  EXPECT_NE((*one)->instance_id(), (*two)->instance_id());
}

TEST(ExitCode, SaysWhatAnotherStartCanChange) {
  EXPECT_EQ(exit_code(Stage::kOptions, absl::InvalidArgumentError("")), 64);
  EXPECT_EQ(exit_code(Stage::kDevice, absl::NotFoundError("")), 64);
  EXPECT_EQ(exit_code(Stage::kDevice, absl::InvalidArgumentError("")), 64);
  EXPECT_EQ(exit_code(Stage::kDevice, absl::ResourceExhaustedError("")), 71);
  EXPECT_EQ(exit_code(Stage::kModel, absl::InvalidArgumentError("")), 65);
  EXPECT_EQ(exit_code(Stage::kModel, absl::DataLossError("")), 65);
  EXPECT_EQ(exit_code(Stage::kModel, absl::NotFoundError("")), 66);
  EXPECT_EQ(exit_code(Stage::kModel, absl::PermissionDeniedError("")), 74);
  EXPECT_EQ(exit_code(Stage::kServing, absl::InvalidArgumentError("")), 70);
  EXPECT_EQ(exit_code(Stage::kServing, absl::ResourceExhaustedError("")), 71);
  EXPECT_EQ(exit_code(Stage::kServing, absl::DeadlineExceededError("")), 75);
  EXPECT_EQ(exit_code(Stage::kServing, absl::UnavailableError("")), 75);
  EXPECT_EQ(exit_code(Stage::kServing, absl::FailedPreconditionError("")), 76);
  EXPECT_EQ(exit_code(Stage::kServing, absl::UnauthenticatedError("")), 77);
  EXPECT_EQ(exit_code(Stage::kServing, absl::OkStatus()), 0);
}

}  // namespace
}  // namespace quire
