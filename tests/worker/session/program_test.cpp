// The program itself: what it says and how it ends when it cannot start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

struct Ending {
  int code = -1;
  std::string output;
};

Ending run(const std::string& arguments) {
  const std::string command =
      absl::StrCat(QUIRE_BINARY_DIR, "/bin/quire-worker ", arguments, " 2>&1");
  std::FILE* pipe = ::popen(command.c_str(), "r");
  Ending ending;
  std::array<char, 512> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) ending.output += buffer.data();
  const int status = ::pclose(pipe);
  ending.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ending;
}

TEST(Program, BadStarts) {
  ScratchFolder scratch;
  write_tiny_gguf(scratch / "tiny.gguf", {});
  write_tiny_gguf(scratch / "cut.gguf", {});
  std::filesystem::resize_file(scratch / "cut.gguf", 100000);
  const std::string tiny = (scratch / "tiny.gguf").string();
  const std::string alone = " --rank 0 --world-size 1";
  struct Case {
    std::string arguments;
    int code;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"--no-such-option", 64, {"--no-such-option"}},
      {tiny + " --rank 0 --world-size 2", 64, {"--instance-id"}},
      {tiny + " --rank 0 --world-size 10 --instance-id x", 64, {"rank 0 of 10", "10", "9"}},
      {(scratch / "none.gguf").string() + alone, 66, {"none.gguf"}},
      {(scratch / "cut.gguf").string() + alone, 65, {"cut.gguf"}},
      {tiny + alone + " --device nonsense", 64, {"nonsense"}},
      {tiny + alone + " --kv-offload-path /x", 64, {"--kv-offload-path is /x", "bytes is 0"}},
      {tiny + alone + " --kv-offload-bytes 1K", 64, {"--kv-offload-bytes is 1024", "KV block"}},
      {tiny + alone + " --kv-offload-bytes 1M --kv-offload-path /nonexistent/folder/below",
       64,
       {"/nonexistent/folder/below/kv-", "No such file"}},
      {tiny + alone + " --worker-secret-file /nonexistent/secret", 66, {"/nonexistent/secret"}},
  };
  for (const Case& c : cases) {
    const Ending ending = run(c.arguments);
    EXPECT_EQ(ending.code, c.code) << c.arguments << "\n" << ending.output;
    for (const std::string& text : c.says) {
      EXPECT_THAT(ending.output, testing::HasSubstr(text)) << c.arguments;
    }
  }
}

TEST(Program, HelpSaysWhatItIs) {
  const Ending ending = run("--help");
  EXPECT_EQ(ending.code, 0);
  EXPECT_THAT(ending.output, testing::HasSubstr("--coordinator"));
}

}  // namespace
}  // namespace quire::test
