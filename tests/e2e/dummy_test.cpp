// A bare config.json, served: --load-format dummy makes its weights, --skip-tokenizer-init takes
// and gives token ids. One rank and two answer alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/e2e/server.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// Big enough for 12 leaves, small enough for a test.
const Json kConfig = {{"architectures", {"LlamaForCausalLM"}},
                      {"torch_dtype", "bfloat16"},
                      {"hidden_size", 256},
                      {"intermediate_size", 768},
                      {"num_hidden_layers", 2},
                      {"num_attention_heads", 8},
                      {"num_key_value_heads", 2},
                      {"vocab_size", 3000},
                      {"max_position_embeddings", 512},
                      {"rms_norm_eps", 1e-5},
                      {"hidden_act", "silu"}};

class BareFolder {
 public:
  BareFolder()
      : path_(std::filesystem::temp_directory_path() / absl::StrCat("quire-dummy-e2e-", getpid())) {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ / "config.json") << kConfig.dump();
  }
  ~BareFolder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// POST /v1/completions; the body of the answer, an error's too.
Json complete(const Server& server, const Json& body) {
  const CommandResult result =
      run_command({"/usr/bin/python3", "-c",
                   "import sys,urllib.request,urllib.error\n"
                   "r = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), "
                   "{'Content-Type': 'application/json'})\n"
                   "try: print(urllib.request.urlopen(r, timeout=60).read().decode())\n"
                   "except urllib.error.HTTPError as e: print(e.read().decode())",
                   absl::StrCat("http://", server.http(), "/v1/completions"), body.dump()});
  return Json::parse(result.output, nullptr, false);
}

TEST(Dummy, ABareConfigIsServedAlikeByOneAndTwoRanks) {
  const BareFolder folder;
  std::vector<int> prompt;
  for (int i = 0; i < 40; ++i) prompt.push_back(i * 71 % 3000);
  const Json request = {
      {"prompt", prompt}, {"max_tokens", 24}, {"temperature", 0}, {"ignore_eos", true}};
  Json first;
  for (const int num_ranks : {1, 2}) {
    auto server = Server::start(folder.path(), num_ranks,
                                {"--load-format", "dummy", "--skip-tokenizer-init"});
    ASSERT_TRUE(server.ok()) << server.status();
    const Json answer = complete(**server, request);
    ASSERT_TRUE(answer.contains("choices")) << answer;
    const Json& choice = answer["choices"][0];
    EXPECT_EQ(choice["text"], "");
    EXPECT_EQ(choice["token_ids"].size(), 24u);
    EXPECT_EQ(choice["prompt_token_ids"], Json(prompt));
    if (first.is_null()) first = choice["token_ids"];
    EXPECT_EQ(choice["token_ids"], first);
    const Json refused = complete(**server, {{"prompt", "Hello"}, {"max_tokens", 4}});
    EXPECT_THAT(refused.dump(), HasSubstr("send token ids"));
  }
}

TEST(Dummy, ABareConfigIsNoCheckpointByItself) {
  const BareFolder folder;
  const CommandResult result = run_command({bin("quire"), "serve", folder.path()});
  EXPECT_EQ(result.exit_code, 66) << result.output;
  EXPECT_THAT(result.output, HasSubstr("no model.safetensors"));
  // With weights but without a tokenizer the coordinator says what is missing.
  const CommandResult no_tokenizer =
      run_command({bin("quire-coordinator"), folder.path(), "--load-format", "dummy"});
  EXPECT_NE(no_tokenizer.exit_code, 0);
  EXPECT_THAT(no_tokenizer.output, HasSubstr("--skip-tokenizer-init"));
}

TEST(Dummy, InspectTellsWhatAConfigWouldHold) {
  const CommandResult result = run_command(
      {bin("quire"), "inspect", absl::StrCat(QUIRE_SOURCE_DIR, "/bench/models/llama-3-8b-awq"),
       "--load-format", "dummy", "--tensor-parallel-size", "2"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("made-up weights"));
  EXPECT_THAT(result.output, HasSubstr("parameters    8030.3 M"));
  EXPECT_THAT(result.output, HasSubstr("quantization  awq, held as bf16: 67 tensors"));
  EXPECT_THAT(result.output, HasSubstr("q4_z: 224 tensors"));
}

}  // namespace
}  // namespace quire::test
