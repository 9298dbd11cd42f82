// Whoever reaches the port of the workers' streams: garbage, other protocols, frames that lie, and
// good messages from those who may not send them. The group that serves notices none of it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "common/wire.h"
#include "tests/coordinator/fleet/serving_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// One HTTP/2 frame: length, type, flags, stream, payload. `claimed`: a length that lies.
std::string frame(char type, char flags, std::uint32_t stream, const std::string& payload,
                  std::int64_t claimed = -1) {
  const auto length = static_cast<std::uint32_t>(
      claimed >= 0 ? claimed : static_cast<std::int64_t>(payload.size()));
  std::string out;
  for (const int shift : {16, 8, 0}) out.push_back(static_cast<char>(length >> shift & 0xff));
  out.push_back(type);
  out.push_back(flags);
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>(stream >> shift & 0xff));
  return out + payload;
}

// HPACK, every field a literal without an index.
std::string field(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name +
         static_cast<char>(value.size()) + value;
}

std::string attach_headers() {
  return field(":method", "POST") + field(":scheme", "http") +
         field(":path", "/quire.v1.Fleet/Attach") + field(":authority", "x") +
         field("te", "trailers") + field("content-type", "application/grpc");
}

class StrangersTest : public ServingFixture {
 protected:
  FleetOptions make_fleet_options() override {
    FleetOptions options = ServingFixture::make_fleet_options();
    options.secret = "pst";
    return options;
  }

  // Sends, and reads for a moment, or until the server closes. (A stream that it takes for a
  // worker's it keeps open until a Hello is overdue, with heartbeats.)
  std::string say(const std::string& bytes) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(address_.substr(address_.rfind(':') + 1), &port));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    pollfd room{fd, POLLOUT, 0};  // a server that has heard enough may leave the rest where it is
    for (std::size_t sent = 0; sent < bytes.size() && poll(&room, 1, 200) > 0;) {
      const ssize_t n =
          send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    std::string heard;
    char buffer[4096];
    pollfd wait{fd, POLLIN, 0};
    const absl::Time enough = absl::Now() + absl::Milliseconds(300);
    while (absl::Now() < enough && poll(&wait, 1, 200) > 0) {
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      heard.append(buffer, static_cast<std::size_t>(n));
    }
    close(fd);
    return heard;
  }

  // A stream by hand: what came back until it ended.
  struct Ended {
    grpc::Status status;
    std::string refusal;
    bool welcomed = false;
  };
  Ended attach(const std::vector<v1::Up>& messages, int seconds = 30) {
    const auto stub =
        v1::Fleet::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
    auto stream = stub->Attach(&context);
    for (const v1::Up& message : messages) stream->Write(message);
    Ended ended;
    v1::Down down;
    while (stream->Read(&down)) {
      if (down.has_refusal()) ended.refusal = down.refusal().reason();
      ended.welcomed = ended.welcomed || down.has_welcome();
    }
    ended.status = stream->Finish();
    return ended;
  }

  v1::Up hello(const std::string& secret) {
    v1::Up up;
    v1::Hello& hello = *up.mutable_hello();
    hello.set_protocol(wire::kProtocolVersion);
    hello.set_instance_id("stranger");
    hello.set_world(kWorld);
    hello.set_build(kBuild);
    hello.set_model_hash(kModelHash);
    hello.set_kv_capacity_blocks(8);
    hello.set_secret(secret);
    return up;
  }

  // Serves one request while `strangers` do what they do; its answer must be the oracle's, in the
  // same epoch.
  template <typename Strangers>
  void serve_beside(Strangers strangers) {
    std::vector<std::unique_ptr<FakeWorker>> ranks;
    const auto meeting = std::make_shared<FakeMeeting>(kWorld);  // or a slow one would fall behind
    for (int rank = 0; rank < kWorld; ++rank) {
      ranks.push_back(std::make_unique<FakeWorker>(
          address_, rank, kWorld, "A", FakeWorkerScript{},
          [](v1::Hello& hello) { hello.set_secret("pst"); }, meeting));
    }
    ASSERT_TRUE(wait_ready());
    const EpochId epoch = engine_->stats().epoch;
    const std::vector<TokenId> prompt = {1, 2, 3};
    auto before = submit(prompt, 400, 7);
    strangers();
    auto after = submit(prompt, 50, 8);
    ASSERT_TRUE(before->wait_done());
    ASSERT_TRUE(after->wait_done());
    EXPECT_EQ(before->tokens(), expected_tokens(prompt, 400, 7));
    EXPECT_EQ(after->tokens(), expected_tokens(prompt, 50, 8));
    EXPECT_EQ(engine_->stats().epoch, epoch);
    EXPECT_EQ(engine_->stats().group_losses, 0u);
  }
};

TEST_F(StrangersTest, BytesOfAnythingElseEndTheirOwnConnectionOnly) {
  serve_beside([this] {
    std::string noise;
    for (int i = 0; i < 100000; ++i) noise.push_back(static_cast<char>(i * 131 % 251));
    const std::string tls_hello("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", 11);
    const std::string settings = frame(4, 0, 0, "");
    const std::string call = kPreface + settings + frame(1, 4, 1, attach_headers());
    // A gRPC message of 4 GiB - 1, the most that can be claimed, in frames of which the first says
    // 16 MiB - 1.
    const std::string huge_message("\x00\xff\xff\xff\xff", 5);
    const std::string cases[] = {
        noise,
        std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        std::string("POST /quire.v1.Fleet/Attach HTTP/1.1\r\nContent-Length: 9\r\n\r\n12345"),
        tls_hello + std::string(200, 'x'),
        std::string(kPreface),
        kPreface + noise,
        kPreface + settings + frame(0, 0, 1, "x", (1 << 24) - 1) + noise,
        call + frame(0, 0, 1, huge_message + std::string(1000, 'x')),
        call + frame(0, 0, 1, std::string("\x00\x00\x00\x00\x04zzzz", 9)),  // no protobuf
        call + frame(0, 0, 1, std::string("\x01\x00\x00\x00\x04zzzz", 9)),  // says compressed
    };
    for (const std::string& bytes : cases) say(bytes);
  });
}

TEST_F(StrangersTest, WithoutTheSecretNobodyIsLetIn) {
  serve_beside([this] {
    for (const std::string& secret :
         {std::string(), std::string("ps"), std::string("pstt"), std::string(100000, 'p')}) {
      const Ended ended = attach({hello(secret)});
      EXPECT_EQ(ended.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
      EXPECT_THAT(ended.refusal, HasSubstr("the worker secret is wrong"));
      EXPECT_FALSE(ended.welcomed);
    }
  });
}

TEST_F(StrangersTest, GoodMessagesInNobodysNameChangeNothing) {
  serve_beside([this] {
    const EpochId epoch = engine_->stats().epoch;
    StepResult answer;
    answer.epoch = epoch;
    answer.step = 5;
    answer.rows.resize(1);
    v1::Up result, beat, error, id;
    wire::encode(answer, result.mutable_result());
    beat.mutable_heartbeat()->set_epoch(epoch);
    beat.mutable_heartbeat()->set_step(1);
    error.mutable_error()->set_epoch(epoch);
    error.mutable_error()->set_message("all is lost");
    id.mutable_collective_id()->set_epoch(epoch);
    id.mutable_collective_id()->set_id("x");
    for (const v1::Up& message : {result, beat, error, id, v1::Up()}) {
      const Ended first = attach({message});  // without Hello
      EXPECT_EQ(first.refusal, "the first message must be Hello");
    }
    // Let in, but as half of another instance: a standby speaks for no epoch. A second
    // Hello takes it off the list.
    const Ended standby =
        attach({hello("pst"), result, beat, error, id, hello("pst")}, /*seconds=*/2);
    EXPECT_FALSE(standby.welcomed);
  });
  EXPECT_TRUE(wait_until([this] { return fleet_->stale_dropped() >= 1; })) << "it is counted";
}

}  // namespace
}  // namespace quire::test
