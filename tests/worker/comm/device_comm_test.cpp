// DeviceComm against HostComm: the same calls with the same values must give the same bits at any
// number of ranks, in random shapes and cuts; and a whole model over both.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/fakes/collective_device.h"
#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"
#include "worker/comm/comm.h"
#include "worker/comm/sum_table.h"
#include "worker/device_buffer.h"

namespace quire::test {
namespace {

constexpr std::uint64_t kSeed = 20261123;
constexpr std::size_t kPartBytes = std::size_t{4} << 20;

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
  options.part_bytes = kPartBytes;
  options.deadline_ms = 20000;
  options.num_local_ranks = world;
  return options;
}

// What ranks meet over.
enum class Over { kHost, kGathered, kInPlace, kMeasured };

using Body = std::function<std::vector<float>(Comm&, Device&)>;

// What `body` gives on every rank, all at once.
std::vector<std::vector<float>> on_ranks(int world, Over over, const Body& body) {
  static std::atomic<int> counter{0};
  const std::string name = absl::StrCat("test.device.", getpid(), ".", counter++);
  const CollectiveMaker maker = among_threads(over == Over::kInPlace || over == Over::kMeasured);
  const std::string id = *maker.make_id();
  std::vector<std::vector<float>> results(static_cast<std::size_t>(world));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      CommOptions options = options_of(name, rank, world);
      options.measure = over == Over::kMeasured;
      if (options.measure) options.part_bytes = std::size_t{1} << 20;
      std::unique_ptr<Device> device = reference_device();
      absl::StatusOr<std::unique_ptr<Comm>> comm;
      if (over != Over::kHost) {
        device = with_collective(std::move(device), maker);
        std::unique_ptr<Collective> collective;
        if (world > 1) {
          auto opened = device->open_collective({rank, world, id, options.deadline_ms});
          ASSERT_TRUE(opened.ok()) << opened.status();
          collective = *std::move(opened);
        }
        comm = open_device_comm(options, *device, std::move(collective));
      } else {
        comm = open_host_comm(options, *device);
      }
      ASSERT_TRUE(comm.ok()) << comm.status();
      EXPECT_EQ((*comm)->rank(), rank);
      EXPECT_EQ((*comm)->world(), world);
      results[static_cast<std::size_t>(rank)] = body(**comm, *device);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

// A random cut of `leaves` leaves among the ranks; some own none.
std::vector<Range> random_cut(std::mt19937_64& random, int leaves, int world) {
  std::vector<int> bounds = {0, leaves};
  for (int r = 1; r < world; ++r) {
    bounds.push_back(static_cast<int>(random() % static_cast<unsigned>(leaves + 1)));
  }
  std::sort(bounds.begin(), bounds.end());
  std::vector<Range> owned;
  for (int r = 0; r < world; ++r) {
    owned.push_back({bounds[static_cast<std::size_t>(r)], bounds[static_cast<std::size_t>(r) + 1]});
  }
  return owned;
}

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// Some rounds of every kind of meeting, all values drawn by (seed, rank); everything that comes
// out.
std::vector<float> session(Comm& comm, Device& device, std::uint64_t seed) {
  std::mt19937_64 shared(seed);  // the same on every rank
  std::mt19937_64 own(seed * 1000 + static_cast<std::uint64_t>(comm.rank()));
  std::normal_distribution<float> normal;
  const int world = comm.world();
  std::vector<float> out;
  std::deque<std::vector<float>> given;  // until wait()
  // A part is written in the order of the device's list, as a linear does it.
  const auto fill = [&](float* part, std::size_t size) {
    std::vector<float>& values = given.emplace_back(size);
    for (float& value : values) value = normal(own);
    if (size > 0) device.copy(part, values.data(), size * sizeof(float));
  };
  for (int round = 0; round < 6; ++round) {
    // Some rounds are large enough for two shots.
    const bool large = round % 3 == 2;
    const int rows =
        large ? 130 + static_cast<int>(shared() % 9) : 1 + static_cast<int>(shared() % 5);
    const int columns = large ? 512 : 8 * (1 + static_cast<int>(shared() % 6));
    const auto size = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);

    std::vector<std::int32_t> owners(static_cast<std::size_t>(rows));
    for (auto& owner : owners) owner = static_cast<int>(shared() % static_cast<unsigned>(world));
    fill(comm.begin_select(rows, columns), size);
    std::vector<float> residual(size);
    std::vector<TokenId> ends(static_cast<std::size_t>(world));  // rank r owns id r
    std::iota(ends.begin(), ends.end(), 1);
    comm.select(ends, owners.data(), rows, columns, residual.data());

    LeafCut cut;
    const int leaves = 1 + static_cast<int>(shared() % 9);
    cut.tree = ReductionTree::over_leaves(leaves);
    for (int l = 0; l < leaves; ++l) cut.leaves.push_back({l, l + 1});
    const MeetPlan plan = make_meet_plan(cut, random_cut(shared, leaves, world));
    std::vector<float> bias(static_cast<std::size_t>(columns)), norm(bias), normed(size);
    for (float& b : bias) b = static_cast<float>(shared() % 100) / 7.0f;
    for (float& n : norm) n = static_cast<float>(shared() % 100) / 9.0f;
    fill(comm.begin_meet(plan, rows, columns), size * static_cast<std::size_t>(plan.max_outputs));
    MeetArgs args;
    args.plan = &plan;
    args.rows = rows;
    args.columns = columns;
    args.bias = shared() % 2 == 0 ? bias.data() : nullptr;
    args.residual = residual.data();
    args.norm_weight = norm.data();
    args.out = {normed.data(), ActivationLayout::kF32, rows, columns};
    comm.meet(args);

    std::vector<int> widths(static_cast<std::size_t>(world));
    for (int& width : widths) width = static_cast<int>(shared() % 40);
    widths[0] += 1;
    const int width = widths[static_cast<std::size_t>(comm.rank())];
    fill(comm.begin_gather(rows, widths), static_cast<std::size_t>(rows * width));
    const Gathered gathered = comm.gather(rows, widths);
    std::vector<std::vector<float>> pieces;
    for (std::size_t r = 0; r < widths.size(); ++r) {
      pieces.emplace_back(static_cast<std::size_t>(rows * widths[r]));
      EXPECT_EQ(gathered.strides[r], static_cast<std::size_t>(widths[r]));
      if (widths[r] > 0)
        device.copy(pieces[r].data(), gathered.pieces[r], pieces[r].size() * sizeof(float));
    }

    std::vector<float> sent(static_cast<std::size_t>(1 + rows), normal(own));
    comm.broadcast(sent.data(), sent.size() * sizeof(float), round % world);
    const absl::Status status = device.wait();
    EXPECT_TRUE(status.ok()) << status;

    append(out, residual);
    append(out, normed);
    append(out, sent);
    for (const std::vector<float>& piece : pieces) append(out, piece);
  }
  return out;
}

class DeviceCommTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, DeviceCommTest, testing::Values(1, 2, 3, 4),
                         [](const auto& degree) { return absl::StrCat("N", degree.param); });

TEST_P(DeviceCommTest, GivesTheBitsOfHostComm) {
  const int world = GetParam();
  for (std::uint64_t seed = kSeed; seed < kSeed + 3; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const Body body = [seed](Comm& comm, Device& device) { return session(comm, device, seed); };
    const auto host = on_ranks(world, Over::kHost, body);
    ASSERT_GT(host[0].size(), 100u);
    for (const auto& rank : host) EXPECT_TRUE(rank == host[0]);  // everything is everyone's
    // Not EXPECT_EQ: nobody wants to read a megabyte of numbers.
    EXPECT_TRUE(on_ranks(world, Over::kGathered, body) == host);
    EXPECT_TRUE(on_ranks(world, Over::kInPlace, body) == host);
    EXPECT_TRUE(on_ranks(world, Over::kMeasured, body) == host);
  }
}

TEST_P(DeviceCommTest, DescribesItself) {
  const int world = GetParam();
  for (const Over over : {Over::kGathered, Over::kInPlace}) {
    const std::string ways = world > 2 ? "one-shot to 256 KB, then two-shot" : "one-shot";
    const std::string how =
        over == Over::kInPlace ? absl::StrCat(", read in place (", ways, ")") : "";
    on_ranks(world, over, [&](Comm& comm, Device&) {
      EXPECT_EQ(comm.description(),
                world == 1 ? "solo" : absl::StrCat("threads", how, ", ", world, " ranks"));
      return std::vector<float>();
    });
  }
}

TEST(SumTableTest, TheLastSizeIsForAllThatIsLarger) {
  SumTable table = usual_sum_table(3);
  table.ways[1] = SumWay::kGathered;
  EXPECT_EQ(table.way_for(1), SumWay::kOneShot);
  EXPECT_EQ(table.way_for(32 << 10), SumWay::kOneShot);
  EXPECT_EQ(table.way_for((32 << 10) + 1), SumWay::kGathered);
  EXPECT_EQ(table.way_for(256 << 10), SumWay::kOneShot);
  EXPECT_EQ(table.way_for(std::size_t{1} << 40), SumWay::kTwoShot);
  EXPECT_EQ(table.description(),
            "one-shot to 32 KB, then gathered to 64 KB, then one-shot to 256 KB, then two-shot");
}

// Whatever each rank measured, all go the same way.
TEST(DeviceComm, RanksUseOneTable) {
  for (const int world : {2, 3}) {
    std::vector<std::string> tables(static_cast<std::size_t>(world));
    on_ranks(world, Over::kMeasured, [&](Comm& comm, Device&) {
      tables[static_cast<std::size_t>(comm.rank())] = comm.description();
      return std::vector<float>();
    });
    for (const std::string& table : tables) EXPECT_EQ(table, tables[0]);
    EXPECT_THAT(tables[0], testing::HasSubstr("read in place ("));
  }
}

// What gather() returned stays until the exchange after the next one.
TEST(DeviceComm, GatheredPiecesOutliveTheNextExchange) {
  on_ranks(3, Over::kInPlace, [](Comm& comm, Device& device) {
    const std::vector<int> widths = {4, 4, 4};
    const std::vector<float> first(4, static_cast<float>(comm.rank() + 1)), second(4, -1.0f);
    device.copy(comm.begin_gather(1, widths), first.data(), 4 * sizeof(float));
    const Gathered gathered = comm.gather(1, widths);
    device.copy(comm.begin_gather(1, widths), second.data(), 4 * sizeof(float));
    comm.gather(1, widths);
    EXPECT_TRUE(device.wait().ok());
    for (std::size_t r = 0; r < 3; ++r) EXPECT_EQ(gathered.pieces[r][3], static_cast<float>(r + 1));
    return std::vector<float>();
  });
}

TEST(DeviceComm, AbortEndsAWait) {
  on_ranks(2, Over::kInPlace, [](Comm& comm, Device& device) {
    int value = 0;
    comm.broadcast(&value, sizeof value, 0);
    EXPECT_TRUE(device.wait().ok());
    if (comm.rank() == 1) {
      comm.abort();
      return std::vector<float>();
    }
    comm.broadcast(&value, sizeof value, 0);
    EXPECT_EQ(device.wait().code(), absl::StatusCode::kAborted);
    return std::vector<float>();
  });
}

// A whole model: the picks and logprobs of one rank alone, in any number of ranks over a
// collective.
class DeviceRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, DeviceRanks, testing::Values(1, 2, 3, 4),
                         [](const auto& degree) { return absl::StrCat("N", degree.param); });

StepPlan prompt_plan(const std::vector<TokenId>& ids) {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  AdmitRow admit;
  admit.tokens = ids;
  admit.num_prompt_tokens = static_cast<int>(ids.size());
  admit.params.temperature = 0.0f;
  admit.params.logprobs = 20;
  plan.admits = {admit};
  PlanRow row;
  row.num_tokens = static_cast<int>(ids.size());
  row.samples = true;
  row.new_blocks = {{2, 0, 1}};
  plan.rows = {row};
  return plan;
}

std::vector<StepResult> run_model(const std::string& path, int world, Over over) {
  const StepLimits limits{8, 16, 4, 64, 256};
  const std::vector<TokenId> ids = random_ids(kSeed, 40);
  const CollectiveMaker maker = among_threads(over == Over::kInPlace);
  const std::string id = *maker.make_id();
  std::vector<StepResult> results(static_cast<std::size_t>(world));
  std::vector<std::thread> threads;
  for (int r = 0; r < world; ++r) {
    threads.emplace_back([&, r] {
      auto file = open_model(path);
      ASSERT_TRUE(file.ok()) << file.status();
      std::unique_ptr<Device> device = reference_device();
      if (over != Over::kHost) device = with_collective(std::move(device), maker);
      const auto rank = Rank::load(*std::move(file), std::move(device), {r, world, 0, world},
                                   make_progress("none", ""));
      ASSERT_TRUE(rank.ok()) << rank.status();
      EXPECT_EQ((*rank)->collective_kind(), over != Over::kHost && world > 1 ? "threads" : "");
      const absl::Status started =
          (*rank)->start(limits, absl::StrCat("test.model.", getpid(), ".", world), id);
      ASSERT_TRUE(started.ok()) << started;
      auto result = (*rank)->runner().run(prompt_plan(ids));
      ASSERT_TRUE(result.ok()) << result.status();
      results[static_cast<std::size_t>(r)] = *std::move(result);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST_P(DeviceRanks, PickWhatOneHostRankPicks) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "tiny.gguf", {});
  const auto host = run_model(scratch / "tiny.gguf", 1, Over::kHost);
  const auto device = run_model(scratch / "tiny.gguf", GetParam(),
                                GetParam() % 2 == 0 ? Over::kInPlace : Over::kGathered);
  ASSERT_EQ(host[0].rows.size(), 1u);
  for (const StepResult& result : device) {
    ASSERT_EQ(result.rows.size(), 1u);
    EXPECT_EQ(result.rows[0].token, host[0].rows[0].token);
  }
  const auto& expected = host[0].rows[0].logprobs;
  const auto& seen = device[0].rows[0].logprobs;
  ASSERT_EQ(seen.size(), expected.size());
  ASSERT_GE(seen.size(), 20u);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].token, expected[i].token);
    EXPECT_EQ(seen[i].logprob, expected[i].logprob);
  }
}

}  // namespace
}  // namespace quire::test
