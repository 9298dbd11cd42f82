// Ranks as threads of one process over a real shared-memory segment: every kind of meeting, many
// times, plus the ways in which a peer can fail to come.
#include "worker/comm/comm.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "worker/comm/shm_segment.h"

namespace quire {
namespace {

std::string unique_name() {
  static std::atomic<int> next{0};
  return absl::StrCat("test.", getpid(), ".", next++);
}

std::unique_ptr<Device> reference_device() {
  DeviceOptions options;
  options.kind = "reference";
  auto device = open_device(options);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

CommOptions options_of(const std::string& name, int rank, int world) {
  CommOptions options;
  options.rank = rank;
  options.world = world;
  options.name = name;
  options.part_bytes = 1 << 16;
  options.deadline_ms = 20000;
  options.num_local_ranks = world;
  return options;
}

// Rank r owns id r.
std::vector<TokenId> ends_of(int world) {
  std::vector<TokenId> ends(static_cast<std::size_t>(world));
  std::iota(ends.begin(), ends.end(), 1);
  return ends;
}

// Runs `body(comm, device)` on every rank at once.
void on_ranks(int world, const std::function<void(Comm&, Device&)>& body) {
  const std::string name = unique_name();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      auto device = reference_device();
      auto comm = open_host_comm(options_of(name, rank, world), *device);
      ASSERT_TRUE(comm.ok()) << comm.status();
      body(**comm, *device);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class CommTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, CommTest, testing::Values(1, 2, 3, 4),
                         [](const auto& degree) { return absl::StrCat("N", degree.param); });

TEST_P(CommTest, SelectTakesEachRowFromItsOwner) {
  const int world = GetParam();
  on_ranks(world, [world](Comm& comm, Device& device) {
    constexpr int kRows = 7, kColumns = 5;
    for (int round = 0; round < 200; ++round) {
      std::vector<std::int32_t> owners(kRows);
      std::vector<float> out(kRows * kColumns, -1.0f);
      float* mine = comm.begin_select(kRows, kColumns);
      for (int t = 0; t < kRows; ++t) {
        owners[static_cast<std::size_t>(t)] = (t + round) % world;
        for (int c = 0; c < kColumns; ++c) {
          mine[t * kColumns + c] = static_cast<float>(comm.rank() * 1000 + round * 10 + t);
        }
      }
      comm.select(ends_of(world), owners.data(), kRows, kColumns, out.data());
      ASSERT_TRUE(device.wait().ok());
      for (int t = 0; t < kRows; ++t) {
        const float expected = static_cast<float>((t + round) % world * 1000 + round * 10 + t);
        ASSERT_EQ(out[static_cast<std::size_t>(t * kColumns + kColumns - 1)], expected);
      }
    }
  });
}

TEST_P(CommTest, GatherShowsEveryPieceToEveryone) {
  const int world = GetParam();
  on_ranks(world, [world](Comm& comm, Device& device) {
    std::vector<int> columns;
    for (int r = 0; r < world; ++r) columns.push_back(3 + 2 * r);
    constexpr int kRows = 4;
    for (int round = 0; round < 100; ++round) {
      float* mine = comm.begin_gather(kRows, columns);
      const int width = columns[static_cast<std::size_t>(comm.rank())];
      for (int i = 0; i < kRows * width; ++i)
        mine[i] = static_cast<float>(comm.rank() * 10000 + round * 100 + i);
      const Gathered gathered = comm.gather(kRows, columns);
      ASSERT_TRUE(device.wait().ok());
      for (int r = 0; r < world; ++r) {
        const std::size_t stride = gathered.strides[static_cast<std::size_t>(r)];
        const float* last_row = gathered.pieces[static_cast<std::size_t>(r)] + (kRows - 1) * stride;
        ASSERT_EQ(last_row[0], static_cast<float>(r * 10000 + round * 100 +
                                                  (kRows - 1) * static_cast<int>(stride)));
      }
    }
  });
}

TEST_P(CommTest, BroadcastReachesAll) {
  const int world = GetParam();
  on_ranks(world, [world](Comm& comm, Device& device) {
    for (int round = 0; round < 100; ++round) {
      const int root = round % world;
      std::vector<TokenId> ids(5, comm.rank() == root ? round : -1);
      comm.broadcast(ids.data(), ids.size() * sizeof(TokenId), root);
      ASSERT_TRUE(device.wait().ok());
      ASSERT_EQ(ids, std::vector<TokenId>(5, round));
    }
  });
}

TEST_P(CommTest, MeetAddsInTreeOrderThenBiasResidualAndNorm) {
  const int world = GetParam();
  // One leaf per rank, values that round differently in any other order.
  LeafCut cut;
  cut.tree = ReductionTree::over_leaves(world);
  std::vector<Range> owned;
  for (int r = 0; r < world; ++r) {
    cut.leaves.push_back({r, r + 1});
    owned.push_back({r, r + 1});
  }
  const MeetPlan plan = make_meet_plan(cut, owned);
  std::vector<std::vector<float>> residuals(static_cast<std::size_t>(world));
  on_ranks(world, [&](Comm& comm, Device& device) {
    constexpr int kRows = 3, kColumns = 8;
    std::vector<float> bias(kColumns, 0.5f), norm(kColumns, 2.0f), residual(kRows * kColumns, 1.0f);
    std::vector<float> out(kRows * kColumns);
    float* mine = comm.begin_meet(plan, kRows, kColumns);
    for (int i = 0; i < kRows * kColumns; ++i)
      mine[i] = 0.1f * static_cast<float>(comm.rank() + 1) + static_cast<float>(i);
    MeetArgs args;
    args.plan = &plan;
    args.rows = kRows;
    args.columns = kColumns;
    args.bias = bias.data();
    args.residual = residual.data();
    args.norm_weight = norm.data();
    args.out = {out.data(), ActivationLayout::kF32, kRows, kColumns};
    comm.meet(args);
    ASSERT_TRUE(device.wait().ok());
    double mean_square = 0.0;
    for (int c = 0; c < kColumns; ++c)
      mean_square += static_cast<double>(residual[static_cast<std::size_t>(c)]) *
                     residual[static_cast<std::size_t>(c)] / kColumns;
    EXPECT_NEAR(out[1], 2.0 * residual[1] / std::sqrt(mean_square + 1e-5), 1e-4);
    residuals[static_cast<std::size_t>(comm.rank())] = residual;
  });
  double expected = 1.5;  // residual + bias
  for (int r = 0; r < world; ++r) expected += 0.1 * (r + 1) + 9.0;
  EXPECT_NEAR(residuals[0][9], expected, 1e-4);
  for (const std::vector<float>& other : residuals) EXPECT_EQ(other, residuals[0]);
}

TEST(CommFailure, PeerThatDoesNotComeIsNamed) {
  const std::string name = unique_name();
  std::thread other([&] {
    auto device = reference_device();
    auto comm = open_host_comm(options_of(name, 1, 2), *device);
    ASSERT_TRUE(comm.ok()) << comm.status();  // attaches, and never meets
  });
  auto device = reference_device();
  CommOptions options = options_of(name, 0, 2);
  options.deadline_ms = 1000;
  auto comm = open_host_comm(options, *device);
  ASSERT_TRUE(comm.ok()) << comm.status();
  other.join();
  int value = 0;
  (*comm)->broadcast(&value, sizeof value, 0);
  const absl::Status status = device->wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_NE(status.message().find("rank 1"), absl::string_view::npos) << status;
}

TEST(CommFailure, AbortEndsAWait) {
  const std::string name = unique_name();
  std::atomic<bool> waiting{false};
  std::thread other([&] {
    auto device = reference_device();
    auto comm = open_host_comm(options_of(name, 1, 2), *device);
    ASSERT_TRUE(comm.ok()) << comm.status();
    device->host_task([&] {
      waiting = true;
      return absl::OkStatus();
    });
    int value = 0;
    (*comm)->broadcast(&value, sizeof value, 0);
    EXPECT_EQ(device->wait().code(), absl::StatusCode::kAborted);
  });
  auto device = reference_device();
  auto comm = open_host_comm(options_of(name, 0, 2), *device);
  ASSERT_TRUE(comm.ok()) << comm.status();
  while (!waiting) std::this_thread::yield();
  (*comm)->abort();
  other.join();
}

TEST(CommFailure, MissingPeerAtStartIsADeadline) {
  auto device = reference_device();
  CommOptions options = options_of(unique_name(), 0, 2);
  options.deadline_ms = 300;
  const auto comm = open_host_comm(options, *device);
  EXPECT_EQ(comm.status().code(), absl::StatusCode::kDeadlineExceeded) << comm.status();
}

TEST(CommFailure, TooLittleSharedMemoryIsSaidWithBothNumbers) {
  auto device = reference_device();
  CommOptions options = options_of(unique_name(), 0, 2);
  options.part_bytes = std::size_t{1} << 44;
  const auto comm = open_host_comm(options, *device);
  EXPECT_EQ(comm.status().code(), absl::StatusCode::kResourceExhausted) << comm.status();
  EXPECT_NE(comm.status().message().find("bytes of shared memory and /dev/shm has"),
            absl::string_view::npos)
      << comm.status();
}

// Somebody else made a segment of that name before us.
TEST(CommFailure, ASegmentThatIsNotOursIsNotJoined) {
  constexpr std::size_t kHalf = 4096;
  const std::string name = absl::StrCat("/quire.", unique_name(), ".0");
  const std::size_t bytes = [&] {
    auto own = ShmSegment::open(name, /*create=*/true, 1, kHalf, 1000);
    EXPECT_TRUE(own.ok()) << own.status();
    return (sizeof(SegmentHeader) + 4095) / 4096 * 4096 + 2 * kHalf;
  }();
  const auto join = [&] {
    return ShmSegment::open(name, /*create=*/false, 1, kHalf, 100).status();
  };
  const int fd = shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(bytes - 4096)), 0);
  EXPECT_EQ(join().code(), absl::StatusCode::kDeadlineExceeded) << "of another size";
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(join().code(), absl::StatusCode::kDeadlineExceeded) << "of the size, without the mark";
  const std::uint64_t other_version = 0x5175697265316501ull;
  ASSERT_EQ(pwrite(fd, &other_version, sizeof other_version, 0), 8);
  EXPECT_EQ(join().code(), absl::StatusCode::kDeadlineExceeded) << "of another layout";
  EXPECT_EQ(ShmSegment::open(name, /*create=*/true, 1, kHalf, 100).status().code(),
            absl::StatusCode::kAlreadyExists);
  if (fchown(fd, 12345, static_cast<gid_t>(-1)) == 0) {  // as root
    EXPECT_EQ(join().code(), absl::StatusCode::kPermissionDenied);
  }
  close(fd);
  shm_unlink(name.c_str());
}

TEST(CommFailure, NothingStaysInDevShm) {
  const std::string name = unique_name();
  const std::string path = absl::StrCat("/dev/shm/quire.", name, ".0");
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      auto device = reference_device();
      auto comm = open_host_comm(options_of(name, rank, 2), *device);
      ASSERT_TRUE(comm.ok()) << comm.status();
      int value = 0;
      (*comm)->broadcast(&value, sizeof value, 0);
      ASSERT_TRUE(device->wait().ok());
      struct stat info {};
      EXPECT_NE(stat(path.c_str(), &info), 0) << path << " is still there while mapped";
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace quire
