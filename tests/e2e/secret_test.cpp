// Coordinator and workers read a worker secret file the same way, and a worker with another secret
// is turned away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/e2e/server.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

class WorkerSecret : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const auto path =
        std::filesystem::path(testing::TempDir()) / absl::StrCat("quire-", getpid(), "-", name);
    std::ofstream(path) << text;
    paths_.push_back(path);
    return path;
  }
  void TearDown() override {
    for (const auto& path : paths_) std::filesystem::remove(path);
  }
  std::vector<std::filesystem::path> paths_;
};

TEST_F(WorkerSecret, FileOfTwoLinesIsReadAlikeByBothSides) {
  QUIRE_NEED_DATA(demo_model());
  const std::string file = write("two-lines", "  open sesame \nthe day it was made\n");
  auto server = Server::start(demo_model(), 2, {"--worker-secret-file", file});
  ASSERT_TRUE(server.ok()) << server.status();
  v1::GenerateRequest request;
  request.set_text("The capital of France is");
  request.set_temperature(0);
  request.set_max_tokens(4);
  const auto got = generate(**server, request);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_THAT(got->text, testing::HasSubstr("Paris"));

  const std::string other = write("other", "the day it was made\nopen sesame\n");
  for (const std::string& secret : {other, std::string()}) {
    std::vector<std::string> worker = {bin("quire-worker"),
                                       demo_model(),
                                       "--rank",
                                       "0",
                                       "--world-size",
                                       "2",
                                       "--instance-id",
                                       "stranger",
                                       "--coordinator",
                                       (*server)->grpc()};
    if (!secret.empty()) worker.insert(worker.end(), {"--worker-secret-file", secret});
    const CommandResult result = run_command(worker);
    EXPECT_EQ(result.exit_code, 76) << result.output;  // refused
    EXPECT_THAT(result.output, testing::HasSubstr("the worker secret is wrong"));
    EXPECT_THAT(result.output, testing::Not(testing::HasSubstr("sesame")));
  }
  EXPECT_TRUE(generate(**server, request).ok()) << "the stranger changed nothing";
}

}  // namespace
}  // namespace quire::test
