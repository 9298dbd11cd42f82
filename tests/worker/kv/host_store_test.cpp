// Blocks of an arena go to the store and come back, byte for byte, and what the store refuses.
#include "worker/kv/host_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "tests/worker/kv/offload_cases.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

constexpr KvShape kShape{DType::kF32, 3, 2, 32, 16};
constexpr int kBlocks = 24;  // several times what is staged at once
constexpr std::uint64_t kId = 0x1122334455667788;

class HostStoreTest : public testing::TestWithParam<OffloadCase> {
 protected:
  void SetUp() override {
    DeviceOptions options;
    options.kind = GetParam().device;
    options.num_threads = 1;
    auto device = GetParam().open_device(options);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    auto arena = KvArena::create(kShape, kBlocks, *device_);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    block_bytes_ = kv_bytes_per_block(kShape, device_->ops());
  }

  HostStoreOptions options(int slots = kBlocks) const {
    HostStoreOptions options;
    options.bytes = static_cast<std::int64_t>(block_bytes_) * slots + 17;
    if (GetParam().in_file) options.folder = scratch_ / "store";
    options.model_hash = 99;
    options.layout = "f32 and so on";
    return options;
  }
  std::unique_ptr<HostStore> open(int slots = kBlocks) {
    auto store = HostStore::open(options(slots), block_bytes_, *device_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  std::size_t arena_bytes() const { return block_bytes_ * kBlocks; }
  std::vector<unsigned char> fill_arena(unsigned seed) {
    std::mt19937 random(seed);
    std::vector<unsigned char> bytes(arena_bytes());
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
    device_->copy(arena_.blocks().data, bytes.data(), bytes.size());
    EXPECT_TRUE(device_->wait().ok());
    return bytes;
  }
  std::vector<unsigned char> read_arena() {
    std::vector<unsigned char> bytes(arena_bytes());
    device_->copy(bytes.data(), arena_.blocks().data, bytes.size());
    EXPECT_TRUE(device_->wait().ok());
    return bytes;
  }
  // `after` has in block to what `before` had in block from, in every layer.
  void expect_moved(const std::vector<unsigned char>& before, BlockId from,
                    const std::vector<unsigned char>& after, BlockId to) {
    const std::size_t size = arena_.blocks().block_bytes;
    const auto at = [&](const std::vector<unsigned char>& bytes, BlockId block) {
      const auto begin =
          bytes.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(block) * size);
      return std::vector<unsigned char>(begin, begin + static_cast<std::ptrdiff_t>(size));
    };
    ASSERT_EQ(at(after, to), at(before, from)) << from << " to " << to;
  }

  std::unique_ptr<Device> device_;
  KvArena arena_;
  std::size_t block_bytes_ = 0;
  ScratchFolder scratch_;
};

// Block b goes to slot 5 b mod 24, and from there to block 7 b mod 24.
TEST_P(HostStoreTest, EveryBlockComesBackWhereItIsWanted) {
  const auto store = open();
  EXPECT_EQ(store->num_blocks(), kBlocks);
  EXPECT_EQ(store->saved(), 0u);
  ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
  const auto before = fill_arena(1);
  std::vector<BlockSwap> saves, loads;
  for (int b = 0; b < kBlocks; ++b) {
    saves.push_back({b, 5 * b % kBlocks});
    loads.push_back({7 * b % kBlocks, 5 * b % kBlocks});
  }
  ASSERT_TRUE(store->enqueue(saves, {}, arena_).ok());
  ASSERT_TRUE(device_->wait().ok());
  fill_arena(2);
  ASSERT_TRUE(store->enqueue({}, loads, arena_).ok());
  const auto after = read_arena();
  for (int b = 0; b < kBlocks; ++b) expect_moved(before, b, after, 7 * b % kBlocks);
}

// One call after the other without waiting: a slot is loaded before it is saved over, and both in
// one call.
TEST_P(HostStoreTest, TheOrderIsTheStreams) {
  const auto store = open(2);
  ASSERT_TRUE(store->begin_epoch(2, false).ok());
  const auto before = fill_arena(3);
  ASSERT_TRUE(store->enqueue({{4, 1}}, {{9, 1}}, arena_).ok());
  ASSERT_TRUE(store->enqueue({{5, 1}, {9, 0}}, {{10, 1}, {11, 0}}, arena_).ok());
  ASSERT_TRUE(store->enqueue({}, {{12, 1}}, arena_).ok());
  const auto after = read_arena();
  expect_moved(before, 4, after, 9);
  expect_moved(before, 5, after, 10);
  expect_moved(before, 4, after, 11);
  expect_moved(before, 5, after, 12);
  expect_moved(before, 13, after, 13);
}

TEST_P(HostStoreTest, RefusesIdsByName) {
  const auto store = open(10);
  ASSERT_TRUE(store->begin_epoch(6, false).ok());
  const auto refusal = [&](std::vector<BlockSwap> saves, std::vector<BlockSwap> loads) {
    const absl::Status status = store->enqueue(saves, loads, arena_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({{kBlocks, 0}}, {}), HasSubstr("`saves` names block 24, outside [0, 23]"));
  EXPECT_THAT(refusal({{-1, 0}}, {}), HasSubstr("block -1"));
  EXPECT_THAT(refusal({{0, 6}}, {}), HasSubstr("host block 6, but the epoch has 6"));
  EXPECT_THAT(refusal({{0, -1}}, {}), HasSubstr("host block -1"));
  EXPECT_THAT(refusal({}, {{kBlocks, 0}}), HasSubstr("`loads` names block 24"));
  EXPECT_THAT(refusal({}, {{0, 6}}), HasSubstr("`loads` names host block 6"));
  EXPECT_THAT(refusal({{0, 1}}, {{0, 2}}), HasSubstr("host block 2, in which nothing was saved"));
  EXPECT_TRUE(store->enqueue({{0, 5}}, {{1, 5}}, arena_).ok());
  ASSERT_TRUE(device_->wait().ok());
}

// What one epoch saved is nothing to the next.
TEST_P(HostStoreTest, AnEpochBeginsEmpty) {
  const auto store = open();
  ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
  ASSERT_TRUE(store->enqueue({{0, 3}}, {}, arena_).ok());
  ASSERT_TRUE(device_->wait().ok());
  EXPECT_EQ(store->saved(), 0u);
  ASSERT_TRUE(store->begin_epoch(kBlocks, true).ok());  // it presented nothing that could be kept
  EXPECT_EQ(store->enqueue({}, {{0, 3}}, arena_).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(HostStoreTest, RefusesTooLittleAndTooMuch) {
  HostStoreOptions with = options();
  with.bytes = static_cast<std::int64_t>(block_bytes_) - 1;
  auto store = HostStore::open(with, block_bytes_, *device_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(std::to_string(block_bytes_)));
  with.bytes = std::int64_t{1} << 46;
  with.free_bytes = 123456789;
  store = HostStore::open(with, block_bytes_, *device_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("--kv-offload-bytes"));
  if (!GetParam().in_file) {
    EXPECT_THAT(std::string(store.status().message()), HasSubstr("123456789"));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, HostStoreTest, testing::ValuesIn(offload_cases()));

using HostStoreFileTest = HostStoreTest;

TEST_P(HostStoreFileTest, ALaterLifeLoadsWhatWasSealed) {
  const auto before = fill_arena(5);
  {
    const auto store = open();
    ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
    ASSERT_TRUE(store->enqueue({{3, 0}, {4, 20}}, {}, arena_).ok());
    ASSERT_TRUE(device_->wait().ok());
    ASSERT_TRUE(store->seal(kId).ok());
    EXPECT_EQ(store->saved(), kId);
  }
  fill_arena(6);
  const auto store = open();
  EXPECT_EQ(store->saved(), kId);
  ASSERT_TRUE(store->begin_epoch(kBlocks, true).ok());
  EXPECT_EQ(store->saved(), 0u);  // no crash from here on may bring it back
  ASSERT_TRUE(store->enqueue({{7, 9}}, {{1, 20}, {2, 0}}, arena_).ok());
  const auto after = read_arena();
  expect_moved(before, 4, after, 1);
  expect_moved(before, 3, after, 2);
  EXPECT_EQ(store->enqueue({}, {{1, 19}}, arena_).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(HostStoreFileTest, WhatTheCoordinatorDoesNotKnowIsForgotten) {
  {
    const auto store = open();
    ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
    ASSERT_TRUE(store->enqueue({{3, 0}}, {}, arena_).ok());
    ASSERT_TRUE(device_->wait().ok());
    ASSERT_TRUE(store->seal(kId).ok());
  }
  {
    const auto store = open();
    ASSERT_EQ(store->saved(), kId);
    ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
    EXPECT_EQ(store->enqueue({}, {{1, 0}}, arena_).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(open()->saved(), 0u);
}

TEST_P(HostStoreFileTest, NorIsItSealedAgain) {
  for (const HostBlockId slot : {0, 1}) {
    const auto store = open();
    ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
    ASSERT_TRUE(store->enqueue({{3, slot}}, {}, arena_).ok());
    ASSERT_TRUE(device_->wait().ok());
    ASSERT_TRUE(store->seal(kId).ok());
  }
  const auto store = open();
  ASSERT_TRUE(store->begin_epoch(kBlocks, true).ok());
  EXPECT_TRUE(store->enqueue({}, {{1, 1}}, arena_).ok());
  EXPECT_EQ(store->enqueue({}, {{1, 0}}, arena_).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(device_->wait().ok());
}

TEST_P(HostStoreFileTest, OtherRanksWorldsAndNumericsHaveTheirOwn) {
  HostStoreOptions one = options();
  EXPECT_EQ(block_file_name(one), "kv-0000000000000063-0-of-1.blocks");
  {
    const auto store = open();
    ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
    ASSERT_TRUE(store->seal(kId).ok());
  }
  const auto saved_for = [&](const HostStoreOptions& with) {
    auto store = HostStore::open(with, block_bytes_, *device_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? (*store)->saved() : 1;
  };
  HostStoreOptions two = one;
  two.world = 2;
  EXPECT_EQ(saved_for(two), 0u);
  // Also under the other's name.
  std::filesystem::copy_file(scratch_ / "store" / block_file_name(one),
                             scratch_ / "store" / block_file_name(two),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(saved_for(two), 0u);
  EXPECT_EQ(saved_for(one), kId);
  one.layout = "bf16 and so on";
  EXPECT_EQ(saved_for(one), 0u);
}

TEST_P(HostStoreFileTest, AChangedBlockEndsTheLoad) {
  {
    const auto store = open();
    ASSERT_TRUE(store->begin_epoch(kBlocks, false).ok());
    fill_arena(8);
    ASSERT_TRUE(store->enqueue({{3, kBlocks - 1}}, {}, arena_).ok());
    ASSERT_TRUE(device_->wait().ok());
    ASSERT_TRUE(store->seal(kId).ok());
  }
  {
    std::fstream file(scratch_ / "store" / block_file_name(options()),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-9, std::ios::end);
    const int was = file.get();
    file.seekp(-9, std::ios::end);
    file.put(static_cast<char>(was ^ 1));
  }
  {
    const auto store = open();
    ASSERT_EQ(store->saved(), kId);
    ASSERT_TRUE(store->begin_epoch(kBlocks, true).ok());
    ASSERT_TRUE(store->enqueue({}, {{1, kBlocks - 1}}, arena_).ok());
    const absl::Status status = device_->wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("KV block 23"));
  }
  EXPECT_EQ(open()->saved(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Devices, HostStoreFileTest, testing::ValuesIn(offload_file_cases()));

}  // namespace
}  // namespace quire::test
