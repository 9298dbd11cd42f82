// A worker's session against a scripted coordinator over loopback: every way it can go on and end.
#include "worker/session/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/wire.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"
#include "tests/worker/session/session_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

// What is logged while it lives.
class Overheard {
 public:
  Overheard() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "overheard", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
  }
  ~Overheard() { spdlog::set_default_logger(before_); }
  std::string text() const { return text_.str(); }  // when nobody logs any more

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

TEST_F(SessionTest, RunsPlansInOrderAndDrains) {
  v1::Hello seen;
  std::vector<StepResult> results;
  v1::Heartbeat last;
  std::uint64_t digest = kNonce;
  const absl::Status status = run([&](const v1::Hello& hello, AttachStream& stream) {
    seen = hello;
    send_welcome(stream, 8);
    // Two plans in flight: the second's input is the token the first one picks.
    const std::vector<StepPlan> plans = {first_plan(), next_plan(2, 3), next_plan(3, 4)};
    for (const StepPlan& plan : plans) {
      send_plan(stream, plan);
      digest = wire::plan_digest(digest, wire::encode(plan));
    }
    v1::Up up;
    while (results.size() < plans.size() && await(stream, v1::Up::kResult, &up)) {
      results.push_back(*wire::decode(up.result()));
    }
    while (last.step() < 3 && await(stream, v1::Up::kHeartbeat, &up)) last = up.heartbeat();
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen.protocol(), wire::kProtocolVersion);
  EXPECT_EQ(seen.build(), QUIRE_VERSION);
  EXPECT_EQ(seen.secret(), "pst");
  EXPECT_EQ(seen.world(), 1u);
  EXPECT_EQ(seen.kv_groups_size(), 1);
  EXPECT_EQ(seen.kv_groups(0).local_heads(), 3u);
  EXPECT_EQ(seen.kv_capacity_blocks(), (8u << 20) / seen.kv_block_bytes());
  ASSERT_EQ(results.size(), 3u);
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].epoch, kEpoch);
    EXPECT_EQ(results[i].step, i + 1);
    ASSERT_EQ(results[i].rows.size(), 1u);
  }
  EXPECT_EQ(last.epoch(), kEpoch);
  EXPECT_EQ(last.step(), 3u);
  EXPECT_EQ(last.plan_digest(), digest);
}

TEST_F(SessionTest, RefusalSaysWhy) {
  const absl::Status status = run([](const v1::Hello&, AttachStream& stream) {
    send_refusal(stream, "its build is 9, but the coordinator's is 8");
    return grpc::Status::OK;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("its build is 9"));
}

TEST_F(SessionTest, ClosedDoorIsUnauthenticated) {
  const absl::Status status = run([](const v1::Hello&, AttachStream&) {
    return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "who are you");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(SessionTest, SilenceLongerThanTheLeaseEndsIt) {
  const absl::Time start = absl::Now();
  const absl::Status status = run([](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8, 200);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("200ms"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(30));
}

TEST_F(SessionTest, HeartbeatsHoldTheLease) {
  const absl::Status status = run([](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8, 1000);
    v1::Down beat;
    beat.mutable_heartbeat()->set_epoch(kEpoch);
    for (int i = 0; i < 15; ++i) {
      absl::SleepFor(absl::Milliseconds(100));
      stream.Write(beat);
    }
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(SessionTest, EndOfTheStreamEndsIt) {
  const absl::Status status = run([](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8);
    return grpc::Status(grpc::StatusCode::ABORTED, "rank 1 was silent");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 was silent"));
}

StepPlan in_epoch(StepPlan plan, EpochId epoch) {
  plan.epoch = epoch;
  return plan;
}

// What a worker sees of a coordinator that died: its stream ends as a broken connection does.
const grpc::Status kDied(grpc::StatusCode::UNAVAILABLE, "Socket closed");

TEST_F(SessionTest, ALostCoordinatorIsDialledAgainAndServedInANewEpoch) {
  std::vector<v1::Hello> hellos;
  std::vector<TokenId> picked;
  const absl::Status status = run([&](const v1::Hello& hello, AttachStream& stream) {
    hellos.push_back(hello);
    const EpochId epoch = 6 + hellos.size();
    send_welcome(stream, 8, 5000, epoch);
    send_plan(stream, in_epoch(first_plan(), epoch));
    v1::Up up;
    if (await(stream, v1::Up::kResult, &up)) picked.push_back(up.result().rows(0).token());
    if (hellos.size() < 3) return kDied;
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(status.ok()) << status;
  ASSERT_EQ(hellos.size(), 3u);
  for (std::size_t life = 0; life < hellos.size(); ++life) {
    EXPECT_EQ(hellos[life].last_epoch(), life == 0 ? 0 : 6 + life);
    EXPECT_EQ(hellos[life].instance_id(), hellos[0].instance_id());
  }
  ASSERT_EQ(picked.size(), 3u);
  EXPECT_EQ(picked[1], picked[0]) << "an epoch begins with nothing of the one before";
  EXPECT_EQ(picked[2], picked[0]);
}

TEST_F(SessionTest, ACoordinatorThatStaysAwayIsGivenUpAfterTheLease) {
  bool is_first = true;
  const absl::Status status = run([&](const v1::Hello&, AttachStream& stream) {
    if (!std::exchange(is_first, false)) return kDied;
    send_welcome(stream, 8, 400);
    v1::Up up;
    await(stream, v1::Up::kHeartbeat, &up);  // it was admitted
    return kDied;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("within 400ms"));
}

// The first fault is a plan that no epoch allows: no reason to come back with it.
TEST_F(SessionTest, AFaultOfItsOwnIsFinalEvenIfTheCoordinatorIsLostToo) {
  int num_streams = 0;
  const absl::Status status = run([&](const v1::Hello&, AttachStream& stream) {
    ++num_streams;
    send_welcome(stream, 8);
    send_plan(stream, next_plan(5, 3));
    v1::Up up;
    await(stream, v1::Up::kError, &up);
    return kDied;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(num_streams, 1);
}

struct BadMessage {
  const char* name;
  std::function<StepPlan()> plan;
  absl::StatusCode code;
  const char* says;
};
class BadMessages : public SessionTest, public testing::WithParamInterface<BadMessage> {};

// The worker tells the coordinator what was wrong before it goes.
TEST_P(BadMessages, IsReportedAndFatal) {
  std::string reported;
  const absl::Status status = run([&](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8);
    send_plan(stream, GetParam().plan());
    v1::Up up;
    if (await(stream, v1::Up::kError, &up)) reported = up.error().message();
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().says));
  EXPECT_THAT(reported, HasSubstr(GetParam().says));
}

const BadMessage kBadMessages[] = {
    {"step_gap", [] { return next_plan(2, 0); }, absl::StatusCode::kFailedPrecondition,
     "step 2 arrived after step 0"},
    {"other_epoch",
     [] {
       StepPlan plan = first_plan();
       plan.epoch = 6;
       return plan;
     },
     absl::StatusCode::kFailedPrecondition, "epoch 6"},
    {"unknown_slot",
     [] {
       StepPlan plan = first_plan();
       plan.admits.clear();
       return plan;
     },
     absl::StatusCode::kInvalidArgument, "slot 0"},
};
INSTANTIATE_TEST_SUITE_P(Plans, BadMessages, testing::ValuesIn(kBadMessages),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_F(SessionTest, MoreBlocksThanOfferedIsRefused) {
  const absl::Status status = run([](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 1 << 20);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(1 << 20)));
}

// As a standby: there was no epoch for it to be in.
TEST_F(SessionTest, DrainBeforeWelcomeIsAGoodEnd) {
  const absl::Status status = run([](const v1::Hello&, AttachStream& stream) {
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(SessionTest, SaysThatItWaitsToBeAdmitted) {
  const auto rank = load();
  FakeCoordinator coordinator([](const v1::Hello&, AttachStream& stream) {
    absl::SleepFor(absl::Milliseconds(200));
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  SessionOptions with = options(coordinator.address());
  with.patience = absl::Milliseconds(100);
  const Overheard log;
  EXPECT_TRUE(run_session(*rank, with).ok());
  EXPECT_THAT(log.text(), HasSubstr("the coordinator has not admitted it yet"));
}

TEST_F(SessionTest, NobodyThere) {
  int port = 0;
  { port = FakeCoordinator(nullptr).port(); }
  const auto rank = load();
  SessionOptions with = options(absl::StrCat("127.0.0.1:", port));
  with.patience = absl::Milliseconds(300);
  const Overheard log;
  const absl::Status status = run_session(*rank, with);
  EXPECT_THAT(log.text(), HasSubstr(absl::StrCat("no coordinator at 127.0.0.1:", port, " yet")));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("127.0.0.1:", port)));
}

TEST_F(SessionTest, ACoordinatorThatComesLater) {
  int port = 0;
  { port = FakeCoordinator(nullptr).port(); }
  const auto rank = load();
  absl::Status status;
  std::thread worker([&] {
    SessionOptions with = options(absl::StrCat("127.0.0.1:", port));
    with.patience = absl::Seconds(30);
    status = run_session(*rank, with);
  });
  absl::SleepFor(absl::Milliseconds(300));
  FakeCoordinator coordinator(
      [](const v1::Hello&, AttachStream& stream) {
        send_welcome(stream, 8);
        send_drain(stream);
        read_to_end(stream);
        return grpc::Status::OK;
      },
      port);
  worker.join();
  EXPECT_TRUE(status.ok()) << status;
}

// Rank 0 runs a step that rank 1 never hears of. When the streams are closed it must come out of
// the exchange at once, not at its deadline of a minute.
TEST_F(SessionTest, ABrokenStreamFreesAPeerThatWaits) {
  std::latch both(2);
  FakeCoordinator coordinator([&](const v1::Hello& hello, AttachStream& stream) {
    send_welcome(stream, 8);
    both.arrive_and_wait();
    if (hello.rank() == 0) send_plan(stream, first_plan());
    v1::Up up;  // a few heartbeats: both ranks are past their start
    for (int i = 0; i < 15 && stream.Read(&up); ++i) {
    }
    return grpc::Status(grpc::StatusCode::ABORTED, "the epoch is over");
  });
  SessionOptions with = options(coordinator.address());
  std::vector<absl::Status> statuses(2);
  std::vector<std::thread> threads;
  const absl::Time start = absl::Now();
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      const auto rank = load(r, 2);
      statuses[static_cast<std::size_t>(r)] = run_session(*rank, with);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(30));
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the epoch is over"));
  }
}

class CollectiveSessionTest : public SessionTest {
 protected:
  // Two ranks over a collective, each under `script`.
  std::vector<absl::Status> run_two(Script script, absl::Duration patience = absl::Seconds(20)) {
    FakeCoordinator coordinator(std::move(script));
    SessionOptions with = options(coordinator.address());
    with.patience = patience;
    std::vector<absl::Status> statuses(2);
    std::vector<std::thread> threads;
    for (int r = 0; r < 2; ++r) {
      threads.emplace_back([&, r] {
        const auto rank = load(r, 2, true);
        statuses[static_cast<std::size_t>(r)] = run_session(*rank, with);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return statuses;
  }
};

// A message that one stream's thread leaves for the other's.
struct Relay {
  std::latch come{1};
  std::string id;
};

TEST_F(CollectiveSessionTest, MeetsByTheIdThatRankZeroMade) {
  Relay relay;
  std::atomic<int> results{0};
  const auto statuses = run_two([&](const v1::Hello& hello, AttachStream& stream) {
    EXPECT_EQ(hello.collective(), "threads");
    send_welcome(stream, 8);
    v1::Up up;
    if (hello.rank() == 0) {
      if (!await(stream, v1::Up::kCollectiveId, &up)) return grpc::Status::CANCELLED;
      EXPECT_EQ(up.collective_id().epoch(), kEpoch);
      relay.id = up.collective_id().id();
      relay.come.count_down();
    }
    relay.come.wait();
    send_collective_id(stream, relay.id);
    send_plan(stream, first_plan());
    if (hello.rank() == 0 && await(stream, v1::Up::kResult, &up)) ++results;
    if (hello.rank() == 1) {  // it never sends an id
      while (stream.Read(&up) && up.heartbeat().step() < 1) {
        EXPECT_EQ(up.kind_case(), v1::Up::kHeartbeat);
      }
    }
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(results, 1);
  EXPECT_FALSE(relay.id.empty());
}

TEST_F(CollectiveSessionTest, AnIdThatDoesNotComeIsADeadline) {
  std::atomic<int> reported{0};
  const auto statuses = run_two(
      [&](const v1::Hello&, AttachStream& stream) {
        send_welcome(stream, 8);
        v1::Down beat;
        beat.mutable_heartbeat()->set_epoch(kEpoch);
        stream.Write(beat);
        v1::Up up;
        if (await(stream, v1::Up::kError, &up) &&
            up.error().message().find("relayed no id") != std::string::npos) {
          ++reported;
        }
        read_to_end(stream);
        return grpc::Status::OK;
      },
      absl::Milliseconds(300));
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("relayed no id"));
  }
  EXPECT_EQ(reported, 2);
}

TEST_F(CollectiveSessionTest, AnEpochThatEndsBeforeTheIdSaysWhy) {
  const auto statuses = run_two([](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8);
    return grpc::Status(grpc::StatusCode::ABORTED, "rank 0 made no id");
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 made no id"));
  }
}

TEST_F(CollectiveSessionTest, DrainBeforeTheIdIsAGoodEnd) {
  const auto statuses = run_two([](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8);
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

TEST_F(CollectiveSessionTest, AnIdOfAnotherEpochIsFatal) {
  const auto statuses = run_two([&](const v1::Hello&, AttachStream& stream) {
    send_welcome(stream, 8);
    send_collective_id(stream, "some id", kEpoch - 1);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("came for epoch 6"));
  }
}

// Sent when both ranks have met, so that neither waits for one that has left.
TEST_F(CollectiveSessionTest, ASecondIdIsFatal) {
  const auto statuses = run_two([&](const v1::Hello& hello, AttachStream& stream) {
    send_welcome(stream, 8);
    send_collective_id(stream, "some id");
    send_plan(stream, first_plan());
    v1::Up up;
    if (hello.rank() == 0) await(stream, v1::Up::kResult, &up);
    while (hello.rank() == 1 && stream.Read(&up) && up.heartbeat().step() < 1) {
    }
    send_collective_id(stream, "some id");
    read_to_end(stream);
    return grpc::Status::OK;
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("a second id"));
  }
}

// One rank alone meets nobody: it names no collective and waits for no id.
TEST_F(CollectiveSessionTest, OneRankAloneNeedsNoId) {
  FakeCoordinator coordinator([](const v1::Hello& hello, AttachStream& stream) {
    EXPECT_EQ(hello.collective(), "");
    send_welcome(stream, 8);
    send_plan(stream, first_plan());
    v1::Up up;
    EXPECT_TRUE(await(stream, v1::Up::kResult, &up));
    send_drain(stream);
    read_to_end(stream);
    return grpc::Status::OK;
  });
  const auto rank = load(0, 1, true);
  const absl::Status status = run_session(*rank, options(coordinator.address()));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(rank->comm().description(), "solo");
}

}  // namespace
}  // namespace quire::test
