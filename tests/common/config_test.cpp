// The option table through its three doors: command line, YAML file, and back to arguments.
#include "common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "common/config_file.h"

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

absl::StatusOr<ParsedConfig> parse(ProgramMask program, std::vector<const char*> words) {
  words.insert(words.begin(), "program");
  return parse_config(program, words);
}

EngineConfig good(ProgramMask program, std::vector<const char*> words) {
  absl::StatusOr<ParsedConfig> parsed = parse(program, std::move(words));
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? parsed->config : EngineConfig{};
}

std::string error(ProgramMask program, std::vector<const char*> words) {
  const absl::Status status = parse(program, std::move(words)).status();
  EXPECT_FALSE(status.ok());
  return std::string(status.message());
}

class ConfigFileTest : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    const auto path = std::filesystem::temp_directory_path() /
                      ("quire_config_" + std::to_string(getpid()) + "_" +
                       ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::ofstream(path) << text;
    path_ = path.string();
    return path_;
  }
  void TearDown() override {
    if (!path_.empty()) std::filesystem::remove(path_);
  }
  std::string path_;
};

TEST(ConfigTest, DefaultsAndBothSpellings) {
  const EngineConfig config = good(
      kServe, {"model.gguf", "--port=9000", "--max-num-seqs", "4", "--tensor_parallel_size", "3"});
  EXPECT_EQ(config.model, "model.gguf");
  EXPECT_EQ(config.port, 9000);
  EXPECT_EQ(config.max_num_seqs, 4);
  EXPECT_EQ(config.tensor_parallel_size, 3);
  EXPECT_EQ(config.block_size, 16);
  EXPECT_EQ(good(kServe, {"--port", "1", "--port", "2"}).port, 2);
  EXPECT_EQ(good(kServe, {"--", "-odd-name"}).model, "-odd-name");
  EXPECT_EQ(good(kWorker, {"--rank", "0", "--world-size", "2"}).world_size, 2);
  EXPECT_EQ(good(kWorker, {"--rank", "-1"}).rank, -1);
}

TEST(ConfigTest, ValuesOutOfRangeNameOptionValueAndRange) {
  const struct {
    std::vector<const char*> words;
    std::vector<const char*> says;
  } cases[] = {
      {{"--port", "65536"}, {"--port", "'65536'", "[0, 65535]"}},
      {{"--port", "80a"}, {"--port", "'80a'"}},
      {{"--port", "-1"}, {"--port", "'-1'"}},
      {{"--port="}, {"--port", "''"}},
      {{"--block-size", "24"}, {"--block-size", "16, 32 or 64"}},
      {{"--tensor-parallel-size", "0"}, {"--tensor-parallel-size", "[1, 4096]"}},
      {{"--steps-in-flight", "3"}, {"--steps-in-flight", "[1, 2]"}},
      {{"--max-num-seqs", "99999999999999999999"}, {"--max-num-seqs"}},
      {{"--max-num-batched-tokens", "1"}, {"--max-num-batched-tokens", "[2, 1048576]"}},
      {{"--max-model-len", "2"}, {"--max-model-len", "0 or an integer in [3,"}},
      {{"--max-model-len", "-1"}, {"--max-model-len", "'-1'"}},
      {{"--dtype", "int3"}, {"--dtype", "auto, float32, bfloat16"}},
      {{"--kv-cache-dtype", "int4"}, {"--kv-cache-dtype", "bfloat16, fp8, int8"}},
      {{"--device", "tpu"}, {"--device", "reference"}},
      {{"--seed", "-4"}, {"--seed", "2^64"}},
      {{"--kv-cache-memory-bytes", "4Q"}, {"--kv-cache-memory-bytes", "512M"}},
      {{"--kv-cache-memory-bytes", "G"}, {"--kv-cache-memory-bytes"}},
      {{"--kv-cache-memory-bytes", "65T"}, {"64T"}},
      {{"--kv-cache-memory-bytes", "4GG"}, {"'4GG'"}},
      {{"--api-key="}, {"--api-key", "empty"}},
      {{"--port", "7", "--grpc-port", "7"}, {"--port and --grpc-port", "7"}},
      {{"--prompt-lookup-min", "5"},
       {"--prompt-lookup-min is 5", "--prompt-lookup-max, which is 4"}},
      {{"--kv-offload-path", "/x"}, {"--kv-offload-path is /x", "--kv-offload-bytes is 0"}},
      {{"--kv-offload-bytes", "1K", "--no-enable-prefix-caching"},
       {"--kv-offload-bytes is 1024", "--no-enable-prefix-caching"}},
      {{"--data-parallel-size", "0"}, {"--data-parallel-size", "[1, 256]"}},
      {{"--data-parallel-size", "2", "--data-parallel-size-local", "3"},
       {"--data-parallel-size-local is 3", "at most --data-parallel-size, which is 2"}},
      {{"--data-parallel-size", "2", "--kv-offload-path", "/x", "--kv-offload-bytes", "1K"},
       {"--kv-offload-path is /x", "--data-parallel-size is 2", "the blocks of one group"}},
      {{"--data-parallel-size", "3", "--hostfile", "hosts"},
       {"--hostfile", "3 groups would be started there", "--data-parallel-size-local 1"}},
      {{"--api-key", "k", "--tenants", "t.yaml"}, {"--tenants and --api-key", "t.yaml"}},
      {{"--scheduling-policy", "lifo"}, {"auto, fcfs, priority, spf, lpm, fair"}},
      {{"--port"}, {"--port needs a value: --port PORT"}},
      {{"--port", "--host", "x"}, {"--port needs a value"}},
      {{"one.gguf", "two.gguf"}, {"'two.gguf'"}},
  };
  for (const auto& c : cases) {
    const std::string message = error(kServe, c.words);
    for (const char* part : c.says) EXPECT_THAT(message, HasSubstr(part));
  }
  EXPECT_THAT(error(kWorker, {"--coordinator", "host"}), HasSubstr("HOST:PORT"));
  EXPECT_THAT(error(kWorker, {"--coordinator", "host:0"}), HasSubstr("HOST:PORT"));
  EXPECT_THAT(error(kWorker, {"--rank", "1"}), HasSubstr("give both"));
  EXPECT_THAT(error(kWorker, {"--rank", "2", "--world-size", "2"}), HasSubstr("below"));
  EXPECT_THAT(error(kWorker, {"--data-parallel-rank", "2", "--data-parallel-size-local", "2"}),
              HasSubstr("--data-parallel-rank is 2, but must be below"));
}

TEST(ConfigTest, OptionsThatGoTogether) {
  EXPECT_EQ(good(kServe, {"--prompt-lookup-min", "4"}).prompt_lookup_min, 4);
  EXPECT_EQ(good(kServe, {"--kv-offload-bytes", "1K"}).kv_offload_bytes, 1024);
  EXPECT_TRUE(good(kServe, {"--no-enable-prefix-caching"}).no_prefix_caching);
  EXPECT_EQ(good(kServe, {"--tenants", "t.yaml"}).tenants_file, "t.yaml");
  EXPECT_EQ(num_local_groups(good(kServe, {"--data-parallel-size", "3"})), 3);
  EXPECT_EQ(num_local_groups(good(kServe, {"--data-parallel-size", "3", "--hostfile", "hosts",
                                           "--data-parallel-size-local", "1"})),
            1);
  for (const char* policy : {"auto", "fcfs", "priority", "spf", "lpm", "fair"}) {
    EXPECT_EQ(good(kServe, {"--scheduling-policy", policy}).scheduling_policy, policy);
  }
}

TEST(ConfigTest, UnknownOptionSuggestsTheNearest) {
  EXPECT_THAT(error(kServe, {"--prot", "1"}), HasSubstr("Did you mean --port?"));
  EXPECT_THAT(error(kServe, {"--max-models-len", "1"}), HasSubstr("Did you mean --max-model-len?"));
  EXPECT_THAT(error(kServe, {"--tensor-parallel", "1"}), HasSubstr("--tensor-parallel-size?"));
  EXPECT_THAT(error(kServe, {"--quantum-entanglement", "1"}), Not(HasSubstr("Did you mean")));
  EXPECT_THAT(error(kServe, {"-p", "1"}), HasSubstr("no option -p"));
  EXPECT_THAT(error(kWorker, {"--port", "1"}),
              AllOf(HasSubstr("--port"), HasSubstr("quire serve and quire-coordinator")));
}

TEST(ConfigTest, BytesTakeSuffixes) {
  const auto bytes = [](const char* value) {
    return good(kServe, {"--kv-cache-memory-bytes", value}).kv_cache_memory_bytes;
  };
  EXPECT_EQ(bytes("12345"), 12345);
  EXPECT_EQ(bytes("2K"), 2048);
  EXPECT_EQ(bytes("512MiB"), 512 << 20);
  EXPECT_EQ(bytes("4G"), std::int64_t{4} << 30);
  EXPECT_EQ(bytes("4GB"), std::int64_t{4} << 30);
  EXPECT_EQ(bytes("64T"), std::int64_t{1} << 46);
}

TEST(ConfigTest, FlagsNeedNoValue) {
  const auto flag = [](std::vector<const char*> argv) {
    argv.insert(argv.begin(), "quire-worker");
    return parse_config(kWorker, argv);
  };
  EXPECT_FALSE(flag({"m.gguf"})->config.deterministic);
  EXPECT_TRUE(flag({"m.gguf", "--deterministic"})->config.deterministic);
  EXPECT_TRUE(flag({"--deterministic", "m.gguf"})->config.deterministic);
  EXPECT_EQ(flag({"--deterministic", "m.gguf"})->config.model, "m.gguf");
  EXPECT_FALSE(flag({"m.gguf", "--deterministic=false"})->config.deterministic);
  EXPECT_EQ(flag({"m.gguf", "--deterministic=1"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto parsed = flag({"m.gguf", "--deterministic"});
  EXPECT_THAT(to_arguments(parsed->config, kWorker), Contains("--deterministic=true"));
}

TEST(ConfigTest, HelpIsGroupedAndComplete) {
  EXPECT_TRUE(parse(kServe, {"--port", "1", "--help"})->help);
  for (const ProgramMask program : {kServe, kCoordinator, kWorker}) {
    const std::string help = help_text(program, "quire serve MODEL [options]");
    EXPECT_THAT(help, HasSubstr("usage: quire serve MODEL [options]\n\nModel:\n"));
    EXPECT_THAT(help, AllOf(HasSubstr("--config FILE"), HasSubstr("--help")));
    for (const Option& option : options()) {
      const std::string head = std::string("  ") + option.name +
                               (option.value == nullptr ? "" : std::string(" ") + option.value);
      EXPECT_EQ(help.find(head) != std::string::npos, (option.programs & program) != 0) << head;
    }
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
  }
  EXPECT_THAT(help_text(kServe, "x"), HasSubstr("[8000]"));
}

TEST(ConfigTest, TableIsSound) {
  std::set<std::string> names;
  std::vector<std::string> groups;
  for (const Option& option : options()) {
    EXPECT_TRUE(names.insert(option.name).second) << option.name;
    if (groups.empty() || groups.back() != option.group) {
      EXPECT_THAT(groups, Not(Contains(option.group))) << "groups are contiguous";
      groups.push_back(option.group);
    }
  }
  for (const char* asked :
       {"--tensor-parallel-size", "--host", "--port", "--grpc-port", "--max-model-len",
        "--max-num-seqs", "--max-num-batched-tokens", "--block-size", "--kv-cache-memory-bytes",
        "--kv-cache-dtype", "--served-model-name", "--device", "--dtype", "--seed", "--api-key"}) {
    EXPECT_TRUE(names.contains(asked)) << asked;
  }
}

TEST(ConfigTest, ArgumentsRoundTrip) {
  EXPECT_THAT(to_arguments(EngineConfig{}, kServe), IsEmpty());
  const EngineConfig config = good(kServe, {"/models/a b.gguf",
                                            "--tensor-parallel-size",
                                            "4",
                                            "--kv-cache-memory-bytes",
                                            "1G",
                                            "--seed",
                                            "18446744073709551615",
                                            "--host",
                                            "::",
                                            "--api-key",
                                            "k",
                                            "--dtype",
                                            "float32",
                                            "--kv-cache-dtype",
                                            "fp8",
                                            "--hostfile",
                                            "hosts",
                                            "--log-level",
                                            "debug",
                                            "--kv-offload-bytes",
                                            "2G",
                                            "--scheduling-policy",
                                            "priority"});
  for (const ProgramMask program : {kServe, kCoordinator, kWorker}) {
    const std::vector<std::string> arguments = to_arguments(config, program);
    std::vector<const char*> words;
    for (const std::string& argument : arguments) words.push_back(argument.c_str());
    const EngineConfig back = good(program, words);
    for (const Option& option : options()) {
      if ((option.programs & program) == 0) continue;
      EXPECT_EQ(option.get(back), option.get(config)) << option.name;
    }
  }
  EXPECT_THAT(to_arguments(config, kWorker), Not(Contains(HasSubstr("api-key"))));
}

TEST(ConfigTest, AKeyIsHandedOnByTheEnvironment) {
  const EngineConfig given = good(kServe, {"m.gguf", "--api-key", "sesame"});
  EXPECT_THAT(to_arguments(given, kCoordinator), Not(Contains(HasSubstr("sesame"))));
  ASSERT_EQ(setenv(kApiKeyVariable, "from outside", 1), 0);
  EXPECT_EQ(good(kServe, {"m.gguf", "--api-key", "sesame"}).api_key, "sesame");
  EXPECT_EQ(good(kCoordinator, {"m.gguf"}).api_key, "from outside");
  EXPECT_EQ(good(kWorker, {"m.gguf"}).api_key, "");
  EXPECT_THAT(error(kServe, {"m.gguf", "--tenants", "t.yaml"}), HasSubstr("QUIRE_API_KEY"));
  EXPECT_THAT(help_text(kServe, "x"), Not(HasSubstr("from outside")));
  unsetenv(kApiKeyVariable);
}

TEST_F(ConfigFileTest, CommandLineWinsOverFile) {
  const std::string file = write(
      "model: m.gguf\nport: 1111\nmax_num_seqs: 7\nmax-model-len: 4096\nrank: 0\n# comment\n");
  const EngineConfig config =
      good(kServe, {"--port", "2222", "--config", file.c_str(), "--block-size", "32"});
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.port, 2222);
  EXPECT_EQ(config.max_num_seqs, 7);
  EXPECT_EQ(config.max_model_len, 4096);
  EXPECT_EQ(config.rank, -1);  // an option of the worker, passed over
}

TEST_F(ConfigFileTest, BadFilesAreNamed) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {"port: 99999\n", "--port: the value is '99999'"},
      {"prot: 1\n", "Did you mean --port?"},
      {"- port\n", "not a map"},
      {"port: [1, 2]\n", "'port' has no single value"},
      {"port:\n", "'port' has no single value"},
      {"port: 1\nport: 2\n", "set twice"},
      {"port: {{{\n", "not valid YAML"},
  };
  for (const auto& c : cases) {
    const std::string file = write(c.text);
    EXPECT_THAT(error(kServe, {"--config", file.c_str()}),
                AllOf(HasSubstr(file), HasSubstr(c.says)));
  }
  EXPECT_THAT(error(kServe, {"--config", "/nowhere.yaml"}), HasSubstr("/nowhere.yaml"));
  EXPECT_EQ(good(kServe, {"--config", write("").c_str()}).port, 8000);
}

TEST_F(ConfigFileTest, ApiKeyFromFileStaysOutOfArguments) {
  const std::string file = write("  sesame \nsecond line\n");
  const EngineConfig config = good(kServe, {"--api-key-file", file.c_str()});
  EXPECT_EQ(config.api_key, "sesame");
  for (const std::string& argument : to_arguments(config, kCoordinator)) {
    EXPECT_THAT(argument, Not(HasSubstr("sesame")));
  }
  EXPECT_THAT(to_arguments(config, kCoordinator), Contains("--api-key-file=" + file));
  EXPECT_EQ(good(kServe, {"--api-key-file", file.c_str(), "--api-key", "x"}).api_key, "x");
  EXPECT_THAT(error(kServe, {"--api-key-file", write("\n").c_str()}), HasSubstr("no secret"));
}

TEST_F(ConfigFileTest, SecretIsTheFirstLineWithoutBlanks) {
  const auto secret = [&](const std::string& text) { return read_secret(write(text)); };
  for (const char* text : {"open sesame", "open sesame\n", "open sesame\nsecond line\n",
                           " \topen sesame \r\n\nthird line", "open sesame\n\n"}) {
    const auto got = secret(text);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(*got, "open sesame");
  }
  for (const char* text : {"", "\n", "\nsecond line\n", " \t \nsecond line\n"}) {
    const auto got = secret(text);
    ASSERT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(
        std::string(got.status().message()),
        AllOf(HasSubstr(path_), HasSubstr("first line holds no secret"), Not(HasSubstr("second"))));
  }
}

TEST_F(ConfigFileTest, SecretOfMoreThanTheLimitIsRefused) {
  constexpr std::size_t kMost = 4096;  // of the whole file
  EXPECT_EQ(*read_secret(write(std::string(kMost, 's'))), std::string(kMost, 's'));
  EXPECT_TRUE(read_secret(write("s\n" + std::string(kMost - 2, 'x'))).ok());
  for (const std::string& text : {std::string(kMost + 1, 's'), "s\n" + std::string(kMost, 'x')}) {
    const auto got = read_secret(write(text));
    ASSERT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(got.status().message()),
                AllOf(HasSubstr(path_), HasSubstr("at most 4096 bytes"), Not(HasSubstr("sss"))));
  }
  EXPECT_THAT(std::string(read_secret("/nowhere/secret").status().message()),
              HasSubstr("/nowhere/secret"));
}

}  // namespace
}  // namespace quire
