// What happens around generation: bad starts, cancelled and expired calls, a worker that dies,
// stopping.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/e2e/server.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

std::string scratch(const std::string& name) {
  return (std::filesystem::path(testing::TempDir()) / absl::StrCat(getpid(), ".", name)).string();
}

CommandResult serve(const std::string& model, std::vector<std::string> options = {}) {
  std::vector<std::string> argv = {bin("quire"), "serve", model, "--port", "0", "--grpc-port", "0"};
  argv.insert(argv.end(), options.begin(), options.end());
  return run_command(argv, 40);
}

// The demo model's bytes, changed by `edit`.
template <typename Edit>
std::string damaged_model(const std::string& name, Edit edit) {
  const std::string path = scratch(name);
  std::filesystem::copy_file(demo_model(), path, std::filesystem::copy_options::overwrite_existing);
  edit(path);
  return path;
}

TEST(BadStart, MissingModelIsNamed) {
  const CommandResult result = serve("/nowhere/model.gguf");
  EXPECT_EQ(result.exit_code, 66) << result.output;
  EXPECT_THAT(result.output, HasSubstr("/nowhere/model.gguf"));
}

TEST(BadStart, NotAModelIsSaid) {
  const std::string path = scratch("text.gguf");
  std::ofstream(path) << "this is not a model";
  const CommandResult result = serve(path);
  EXPECT_EQ(result.exit_code, 65) << result.output;
  EXPECT_THAT(result.output, HasSubstr(path));
  std::filesystem::remove(path);
}

TEST(BadStart, TruncatedModelNamesFileAndTensor) {
  QUIRE_NEED_DATA(demo_model());
  const std::string path = damaged_model("short.gguf", [](const std::string& p) {
    std::filesystem::resize_file(p, std::filesystem::file_size(p) / 2);
  });
  const CommandResult result = serve(path);
  EXPECT_EQ(result.exit_code, 65) << result.output;
  EXPECT_THAT(result.output, HasSubstr(path));
  EXPECT_THAT(result.output, testing::ContainsRegex("tensor|blk\\.|token_embd"));
  std::filesystem::remove(path);
}

TEST(BadStart, CorruptHeaderIsSaid) {
  QUIRE_NEED_DATA(demo_model());
  const std::string path = damaged_model("corrupt.gguf", [](const std::string& p) {
    std::fstream file(p, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8);  // the number of tensors
    const char huge[8] = {-1, -1, -1, -1, -1, -1, -1, 127};
    file.write(huge, sizeof huge);
  });
  const CommandResult result = serve(path);
  EXPECT_EQ(result.exit_code, 65) << result.output;
  EXPECT_THAT(result.output, HasSubstr(path));
  std::filesystem::remove(path);
}

TEST(BadStart, ASafetensorsFolderThatLies) {
  const std::filesystem::path folder = scratch("folder");
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json")
      << R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
             "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
             "vocab_size": 8, "max_position_embeddings": 64, "tie_word_embeddings": true,
             "torch_dtype": "float32"})";
  // A header of 2^63 bytes, in a file of 16.
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << std::string("\0\0\0\0\0\0\0\x80{}      ", 16);
  const CommandResult result = serve(folder.string());
  EXPECT_EQ(result.exit_code, 65) << result.output;
  EXPECT_THAT(result.output, HasSubstr("model.safetensors"));
  EXPECT_THAT(result.output, HasSubstr("9223372036854775808 bytes long"));
  std::filesystem::remove_all(folder);
}

TEST(BadStart, UnknownArchitectureIsNamed) {
  QUIRE_NEED_DATA(data_root() / "data/models/tiny-random/gpt2");
  const CommandResult result = serve((data_root() / "data/models/tiny-random/gpt2").string());
  EXPECT_EQ(result.exit_code, 65) << result.output;
  EXPECT_THAT(result.output, HasSubstr("GPT2LMHeadModel"));
}

TEST(BadStart, MoreRanksThanQueryHeadsGivesBothNumbers) {
  QUIRE_NEED_DATA(demo_model());
  const CommandResult result = serve(demo_model(), {"--tensor-parallel-size", "10"});
  EXPECT_EQ(result.exit_code, 64);
  const CommandResult inspected =
      run_command({bin("quire"), "inspect", demo_model(), "--tensor-parallel-size", "10"}, 40);
  EXPECT_EQ(inspected.exit_code, 64) << inspected.output;
  EXPECT_THAT(result.output, HasSubstr("9"));
  EXPECT_THAT(result.output, HasSubstr("10"));
}

TEST(BadStart, MissingHostfileIsNamed) {
  QUIRE_NEED_DATA(demo_model());
  const CommandResult result = serve(demo_model(), {"--hostfile", "/nowhere/hosts"});
  EXPECT_EQ(result.exit_code, 66) << result.output;
  EXPECT_THAT(result.output, HasSubstr("--hostfile: cannot read /nowhere/hosts"));
}

// On a machine with a GPU this would start a server: then there is nothing to see here.
TEST(BadStart, CudaWithoutAGpuIsSaidOnce) {
  QUIRE_NEED_DATA(demo_model());
  const CommandResult devices = run_command({bin("quire-worker"), "--list-devices"}, 60);
  if (devices.output.find("GPU 0") != std::string::npos) GTEST_SKIP() << "a GPU is here";
  const CommandResult result = serve(demo_model(), {"--device", "cuda"});
  EXPECT_EQ(result.exit_code, 64) << result.output;
  EXPECT_THAT(result.output, testing::ContainsRegex("no NVIDIA driver|no CUDA backend|no GPU"));
  EXPECT_THAT(result.output, testing::Not(HasSubstr("starting it again")));
}

TEST(BadStart, UnknownOptionSuggestsTheNearest) {
  const CommandResult result = serve("m.gguf", {"--tensor-paralel-size", "2"});
  EXPECT_EQ(result.exit_code, 64) << result.output;
  EXPECT_THAT(result.output, HasSubstr("--tensor-parallel-size"));
}

TEST(BadStart, PortInUseIsNamed) {
  QUIRE_NEED_DATA(demo_model());
  const int taken = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(taken, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(taken, 1), 0);
  socklen_t size = sizeof address;
  getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size);
  const std::string port = absl::StrCat(ntohs(address.sin_port));
  for (const char* option : {"--port", "--grpc-port"}) {
    const CommandResult result = serve(demo_model(), {option, port});
    EXPECT_NE(result.exit_code, 0);
    EXPECT_THAT(result.output, HasSubstr(port)) << option;
    EXPECT_THAT(result.output, HasSubstr("in use")) << option;
  }
  close(taken);
}

TEST(BadStart, ImpossibleCacheSizesAreFinal) {
  QUIRE_NEED_DATA(demo_model());
  for (const char* size : {"1", "100000G"}) {
    const CommandResult result = serve(demo_model(), {"--kv-cache-memory-bytes", size});
    EXPECT_EQ(result.exit_code, 64) << result.output;
    EXPECT_THAT(result.output, HasSubstr("--kv-cache-memory-bytes"));
    EXPECT_THAT(result.output, testing::Not(HasSubstr("starting it again")));
  }
}

class RunningServer : public testing::Test {
 protected:
  void SetUp() override {
    QUIRE_NEED_DATA(demo_model());
    auto started = Server::start(demo_model(), 2);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  static v1::GenerateRequest long_request() {
    v1::GenerateRequest request;
    request.set_text("Once upon a time");
    request.set_max_tokens(2000);
    request.set_ignore_eos(true);
    request.set_temperature(0);
    return request;
  }

  bool idle() {
    return server_->metric("vllm:num_requests_running") == 0 &&
           server_->metric("vllm:kv_cache_usage_perc") == 0;
  }

  std::unique_ptr<Server> server_;
};

TEST_F(RunningServer, CancelledCallFreesItsBlocks) {
  grpc::ClientContext context;
  auto reader = server_->stub().Generate(&context, long_request());
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  EXPECT_GT(server_->metric("vllm:kv_cache_usage_perc"), 0);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server_->eventually([&] { return idle(); }));
}

TEST_F(RunningServer, DeadlineFreesItsBlocks) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(700));
  auto reader = server_->stub().Generate(&context, long_request());
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(server_->eventually([&] { return idle(); }));
}

TEST_F(RunningServer, CancelByRequestId) {
  grpc::ClientContext context;
  v1::GenerateRequest request = long_request();
  request.set_request_id("mine");
  auto reader = server_->stub().Generate(&context, request);
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  grpc::ClientContext cancel_context;
  v1::CancelRequest cancel;
  v1::CancelReply cancelled;
  cancel.set_request_id("mine");
  ASSERT_TRUE(server_->stub().Cancel(&cancel_context, cancel, &cancelled).ok());
  EXPECT_TRUE(cancelled.found());
  while (reader->Read(&reply)) {
  }
  reader->Finish();
  EXPECT_TRUE(server_->eventually([&] { return idle(); }));
}

TEST_F(RunningServer, StreamGoesOnWhenAWorkerDies) {
  v1::GenerateRequest request = long_request();
  request.set_max_tokens(300);
  auto undisturbed = generate(*server_, request);
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  grpc::ClientContext context;
  auto reader = server_->stub().Generate(&context, request);
  v1::GenerateReply reply;
  std::vector<int> tokens;
  bool killed = false;
  while (reader->Read(&reply)) {
    for (int id : reply.delta().token_ids()) tokens.push_back(id);
    if (!killed && tokens.size() >= 20) {
      const std::vector<int> workers = server_->workers();
      ASSERT_EQ(workers.size(), 2u);
      kill(workers[1], SIGKILL);
      killed = true;
    }
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(killed);
  EXPECT_EQ(tokens, undisturbed->tokens);
  EXPECT_EQ(server_->metric("quire_group_losses_total"), 1);
}

TEST_F(RunningServer, BadRequestsAreExplainedAndDisturbNobody) {
  grpc::ClientContext context;
  auto reader = server_->stub().Generate(&context, long_request());
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  struct Bad {
    const char* what;
    std::function<void(v1::GenerateRequest&)> make;
    const char* expected;
  };
  const Bad table[] = {
      {"temperature", [](auto& r) { r.set_temperature(3); }, "temperature"},
      {"n", [](auto& r) { r.set_n(1000000); }, "`n`"},
      {"max_tokens", [](auto& r) { r.set_max_tokens(4000000000u); }, "max_tokens"},
      {"logprobs", [](auto& r) { r.set_logprobs(21); }, "logprobs"},
      {"empty", [](auto& r) { r.set_text(""); }, "`text` is empty"},
      {"long prompt", [](auto& r) { r.mutable_token_ids()->mutable_ids()->Resize(9000, 5); },
       "8192"},
      {"bad id", [](auto& r) { r.mutable_token_ids()->add_ids(-1); }, "-1"},
      {"model", [](auto& r) { r.set_model("gpt-9"); }, "gpt-9"},
  };
  for (const Bad& bad : table) {
    v1::GenerateRequest request;
    request.set_text("Hello");
    request.set_max_tokens(4);
    bad.make(request);
    const auto got = generate(*server_, request);
    EXPECT_FALSE(got.ok()) << bad.what;
    EXPECT_THAT(std::string(got.status().message()), HasSubstr(bad.expected)) << bad.what;
  }
  EXPECT_TRUE(reader->Read(&reply));
  context.TryCancel();
  reader->Finish();
}

}  // namespace
}  // namespace quire::test
