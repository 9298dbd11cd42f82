// A whole coordinator in this process, with a real checkpoint's text and fake ranks; and the
// program itself: its lines, signals and exit codes.
#include "coordinator/server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "common/model_file/model_file.h"
#include "generate.grpc.pb.h"
#include "tests/coordinator/fleet/fake_worker.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

std::string model_path() {
  return (data_root() / "data/models/stories260K/stories260K.F32.gguf").string();
}

EngineConfig config_of(int world) {
  EngineConfig config;
  config.model = model_path();
  config.tensor_parallel_size = world;
  config.port = 0;
  config.grpc_port = 0;
  return config;
}

// Fake ranks that present themselves as those of the real model.
std::vector<std::unique_ptr<FakeWorker>> attach(const std::string& address, int world) {
  const std::uint64_t hash = open_model(model_path()).value().hash;
  std::vector<std::unique_ptr<FakeWorker>> ranks;
  const auto meeting = std::make_shared<FakeMeeting>(world);
  for (int r = 0; r < world; ++r) {
    ranks.push_back(std::make_unique<FakeWorker>(
        address, r, world, "A", FakeWorkerScript{},
        [hash](v1::Hello& hello) {
          hello.set_model_hash(hash);
          hello.set_build(QUIRE_VERSION);
        },
        meeting));
  }
  return ranks;
}

// A unary call by its bytes: for services whose compiled stubs the distribution does not ship.
std::optional<std::string> raw_call(const std::shared_ptr<grpc::Channel>& channel,
                                    const std::string& method, const std::string& request) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  grpc::CompletionQueue queue;
  const grpc::Slice slice(request);
  const grpc::ByteBuffer out(&slice, 1);
  auto call = stub.PrepareUnaryCall(&context, method, out, &queue);
  call->StartCall();
  grpc::ByteBuffer in;
  grpc::Status status;
  call->Finish(&in, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  grpc::Slice reply;
  if (!status.ok() || !in.DumpToSingleSlice(&reply).ok()) return std::nullopt;
  return std::string(reply.begin(), reply.end());
}

// 1 = SERVING, 2 = NOT_SERVING, -1 = an error.
int health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  std::string request;
  if (!service.empty()) {
    request = "\x0a";
    request.push_back(static_cast<char>(service.size()));
    request.append(service);
  }
  const auto reply = raw_call(channel, "/grpc.health.v1.Health/Check", request);
  return reply.has_value() && reply->size() == 2 ? (*reply)[1] : -1;
}

template <typename Predicate>
bool wait_until(Predicate predicate) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!predicate()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

TEST(ServerTest, ServesOnceAGroupIsReadyAndStopsInOrder) {
  QUIRE_NEED_DATA(model_path());
  absl::Notification ready;
  auto server = Server::start(config_of(2), {.on_ready = [&] { ready.Notify(); }});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->grpc_address();
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  EXPECT_FALSE((*server)->ready());
  EXPECT_EQ(health(channel, "live"), 1);
  EXPECT_EQ(health(channel, "ready"), 2);
  EXPECT_EQ(health(channel, ""), 2);

  auto ranks = attach(address, 2);
  ASSERT_TRUE(ready.WaitForNotificationWithTimeout(kPatience));
  ASSERT_TRUE(wait_until([&] { return (*server)->ready(); }));
  EXPECT_EQ(health(channel, "ready"), 1);
  EXPECT_EQ(health(channel, ""), 1);

  auto stub = v1::Generation::NewStub(channel);
  v1::GenerateRequest request;
  request.set_text("Once upon a time");
  request.set_max_tokens(40);
  request.set_ignore_eos(true);
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  v1::GenerateReply reply, last;
  std::string text;
  while (reader->Read(&reply)) {
    text += reply.delta().text();
    last = reply;
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(last.usage().completion_tokens(), 40u);
  EXPECT_FALSE(text.empty());

  (*server)->stop();
  for (auto& rank : ranks) {
    EXPECT_TRUE(rank->wait().ok());
    EXPECT_TRUE(rank->drained());
  }
}

TEST(ServerTest, HealthFollowsTheGroup) {
  QUIRE_NEED_DATA(model_path());
  auto server = Server::start(config_of(1), {});
  ASSERT_TRUE(server.ok()) << server.status();
  auto channel = grpc::CreateChannel((*server)->grpc_address(), grpc::InsecureChannelCredentials());
  auto ranks = attach((*server)->grpc_address(), 1);
  ASSERT_TRUE(wait_until([&] { return health(channel, "ready") == 1; }));
  ranks.clear();
  ASSERT_TRUE(wait_until([&] { return health(channel, "ready") == 2; }));
  EXPECT_EQ(health(channel, "live"), 1);
}

TEST(ServerTest, HealthSaysWhenItIsOver) {
  QUIRE_NEED_DATA(model_path());
  auto server = Server::start(config_of(1), {});
  ASSERT_TRUE(server.ok()) << server.status();
  auto channel = grpc::CreateChannel((*server)->grpc_address(), grpc::InsecureChannelCredentials());
  auto ranks = attach((*server)->grpc_address(), 1);
  ASSERT_TRUE(wait_until([&] { return health(channel, "ready") == 1; }));
  (*server)->fail();  // as SIGUSR2 does
  ASSERT_TRUE(wait_until([&] { return health(channel, "live") == 2; }));
  EXPECT_EQ(health(channel, "ready"), 2);
}

TEST(ServerTest, DescribesItsServicesByReflection) {
  QUIRE_NEED_DATA(model_path());
  auto server = Server::start(config_of(1), {});
  ASSERT_TRUE(server.ok()) << server.status();
  const auto reply =
      raw_call(grpc::CreateChannel((*server)->grpc_address(), grpc::InsecureChannelCredentials()),
               "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  ASSERT_TRUE(reply.has_value());
  EXPECT_THAT(*reply, HasSubstr("quire.v1.Generation"));
  EXPECT_THAT(*reply, HasSubstr("grpc.health.v1.Health"));
}

TEST(ServerTest, SaysWhatIsWrongAtTheStart) {
  QUIRE_NEED_DATA(model_path());
  const auto start = [](const EngineConfig& config) { return Server::start(config, {}).status(); };
  EngineConfig config = config_of(1);
  config.model = "/no/such/model.gguf";
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("/no/such/model.gguf"));

  config = config_of(64);
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("64"));

  config = config_of(1);
  config.max_model_len = 1 << 20;
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("--max-model-len is 1048576"));

  config = config_of(1);
  config.worker_secret_file = "/no/such/secret";
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("/no/such/secret"));

  config = config_of(1);
  config.tenants_file = "/no/such/tenants";
  EXPECT_THAT(std::string(start(config).message()), HasSubstr("/no/such/tenants"));
}

TEST(ServerTest, NamesAPortThatIsInUse) {
  QUIRE_NEED_DATA(model_path());
  auto first = Server::start(config_of(1), {});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto port_of = [](const std::string& url) {
    return std::stoi(url.substr(url.rfind(':') + 1));
  };
  EngineConfig config = config_of(1);
  config.grpc_port = port_of((*first)->grpc_address());
  absl::Status status = Server::start(config, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("Port ", config.grpc_port)));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--grpc-port"));

  config = config_of(1);
  config.port = port_of((*first)->http_url());
  status = Server::start(config, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(config.port)));
}

// quire-coordinator as a child, its standard output in a pipe.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments) {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    output_ = fds[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    std::vector<std::string> text = {std::string(QUIRE_BINARY_DIR) + "/bin/quire-coordinator"};
    text.insert(text.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& argument : text) argv.push_back(argument.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0) << argv[0];
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
  }
  ~Program() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(output_);
  }

  // The next line, or "" when none comes.
  std::string line() {
    const absl::Time deadline = absl::Now() + kPatience;
    while (true) {
      const std::size_t end = buffer_.find('\n');
      if (end != std::string::npos) {
        const std::string found = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return found;
      }
      pollfd wait{output_, POLLIN, 0};
      const auto left = absl::ToInt64Milliseconds(deadline - absl::Now());
      if (left <= 0 || poll(&wait, 1, static_cast<int>(left)) <= 0) return "";
      char bytes[512];
      const ssize_t got = read(output_, bytes, sizeof(bytes));
      if (got <= 0) return "";
      buffer_.append(bytes, static_cast<std::size_t>(got));
    }
  }
  void signal(int number) const { kill(pid_, number); }
  int exit_code() {
    int status = 0;
    if (!wait_until([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) return -1;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  std::string buffer_;
};

TEST(ProgramTest, ListensBecomesReadyAndStopsOnSigterm) {
  QUIRE_NEED_DATA(model_path());
  Program program({model_path(), "--port", "0", "--grpc-port", "0"});
  const std::string listening = program.line();
  ASSERT_THAT(listening,
              ::testing::StartsWith("quire-coordinator listening http=http://127.0.0.1:"));
  const std::vector<std::string> halves = absl::StrSplit(listening, " grpc=");
  ASSERT_EQ(halves.size(), 2u);
  auto ranks = attach(halves[1], 1);
  EXPECT_EQ(program.line(), "quire-coordinator attached epoch=1 instance=A");
  const std::string ready = program.line();
  EXPECT_THAT(ready, ::testing::StartsWith("quire-coordinator ready http=http://127.0.0.1:"));
  EXPECT_THAT(ready, ::testing::EndsWith(" grpc=" + halves[1]));
  program.signal(SIGTERM);
  EXPECT_EQ(program.exit_code(), 0);
  EXPECT_TRUE(ranks[0]->wait().ok());
  EXPECT_TRUE(ranks[0]->drained());
}

TEST(ProgramTest, GivesUpWhenToldThatNoGroupWillCome) {
  QUIRE_NEED_DATA(model_path());
  Program program({model_path(), "--port", "0", "--grpc-port", "0"});
  const std::string listening = program.line();
  const std::vector<std::string> halves = absl::StrSplit(listening, " grpc=");
  ASSERT_EQ(halves.size(), 2u);
  {
    auto ranks = attach(halves[1], 1);
    EXPECT_EQ(program.line(), "quire-coordinator attached epoch=1 instance=A");
    EXPECT_THAT(program.line(), ::testing::StartsWith("quire-coordinator ready "));
  }
  EXPECT_EQ(program.line(), "quire-coordinator lost epoch=1 instance=A cause=rank_gone");
  program.signal(SIGUSR2);
  EXPECT_EQ(program.line(), "quire-coordinator stopped");
  EXPECT_EQ(program.exit_code(), 1);
}

TEST(ProgramTest, ExitCodesTellWhatIsWrong) {
  QUIRE_NEED_DATA(model_path());
  EXPECT_EQ(Program({"--no-such-option"}).exit_code(), 64);
  EXPECT_EQ(Program({"/no/such/model.gguf"}).exit_code(), 66);
  Program first({model_path(), "--port", "0", "--grpc-port", "0"});
  const std::string line = first.line();
  const std::string port = line.substr(line.rfind(':') + 1);
  EXPECT_EQ(Program({model_path(), "--port", "0", "--grpc-port", port}).exit_code(), 69);
  first.signal(SIGINT);
  EXPECT_EQ(first.exit_code(), 0);
}

}  // namespace
}  // namespace quire::test
