// What the ranks are told to dial.
#include "deploy/quire/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

using testing::HasSubstr;

class AddressForRanks : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  EngineConfig config(const std::string& host, const std::string& hostfile) {
    std::ofstream(path_) << hostfile;
    EngineConfig config;
    config.grpc_host = host;
    config.hostfile = path_;
    return config;
  }
  const std::string path_ =
      (std::filesystem::temp_directory_path() / absl::StrCat("quire-hosts-", getpid())).string();
};

TEST_F(AddressForRanks, OneMachineDialsWhereTheCoordinatorListens) {
  EXPECT_EQ(*address_for_ranks(EngineConfig(), "a", "127.0.0.1:50051"), "127.0.0.1:50051");
  EXPECT_EQ(*address_for_ranks(config("127.0.0.1", "# all here\na slots=4\nlocalhost\n"), "a",
                               "127.0.0.1:1"),
            "127.0.0.1:1");
}

TEST_F(AddressForRanks, OtherMachinesDialThisOnesName) {
  EXPECT_EQ(*address_for_ranks(config("0.0.0.0", "a\nb slots=2\n"), "a", "127.0.0.1:50051"),
            "a:50051");
  EXPECT_EQ(*address_for_ranks(config("10.0.0.1", "a\nb\n"), "a", "10.0.0.1:50051"),
            "10.0.0.1:50051");
}

TEST_F(AddressForRanks, AFileWithoutHostsIsRefused) {
  for (const char* text : {"", "\n\n", "# a\n  # b\n"}) {
    const auto none = address_for_ranks(config("0.0.0.0", text), "a", "x:1");
    ASSERT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(none.status().message()), HasSubstr("names no host"));
  }
  EngineConfig folder;
  folder.hostfile = "/tmp";
  EXPECT_FALSE(address_for_ranks(folder, "a", "x:1").ok());
  EXPECT_EQ(*hosts_in(config("x", "a\tslots=2\r\n b # c\n").hostfile),
            (std::vector<std::string>{"a", "b"}));
}

TEST_F(AddressForRanks, LoopbackIsRefusedWhereOthersAreNamed) {
  const auto refused = address_for_ranks(config("127.0.0.1", "a\n  b slots=2\n"), "a", "x:1");
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("names b"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--grpc-host 127.0.0.1"));
}

TEST(LaunchTest, AKeyIsInNoCommandLineAndOnlyTheCoordinatorsEnvironment) {
  EngineConfig config;
  config.model = "m.gguf";
  config.api_key = "sesame";
  const Launch coordinator = coordinator_launch(config, "/bin");
  const Launch group = group_launch(config, "/bin", "127.0.0.1:1", "one");
  EXPECT_THAT(coordinator.argv, testing::Each(testing::Not(HasSubstr("sesame"))));
  EXPECT_THAT(coordinator.env, testing::Contains("QUIRE_API_KEY=sesame"));
  EXPECT_THAT(group.argv, testing::Each(testing::Not(HasSubstr("sesame"))));
  EXPECT_THAT(group.env, testing::Each(testing::Not(HasSubstr("sesame"))));
  config.api_key_file = "/keys/one";
  EXPECT_THAT(coordinator_launch(config, "/bin").argv,
              testing::Contains("--api-key-file=/keys/one"));
  EXPECT_THAT(coordinator_launch(config, "/bin").env,
              testing::Each(testing::Not(HasSubstr("sesame"))));
}

// In a container mpirun is started by hand, with settings from a file (deploy/container).
TEST(GroupLaunch, TheImageHasTheSameSettings) {
  std::map<std::string, std::string> file;
  std::ifstream in(std::string(QUIRE_SOURCE_DIR) + "/deploy/container/openmpi-mca-params.conf");
  for (std::string name, equals, line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    words >> name >> equals >> file[name];
  }
  for (const char* hostfile : {"", "hosts"}) {
    EngineConfig config;
    config.hostfile = hostfile;
    const std::vector<std::string> argv = group_launch(config, "/bin", "a:1", "id").argv;
    int settings = 0;
    for (std::size_t i = 0; i + 2 < argv.size(); ++i) {
      // In one host's group only: pods reach each other over the network.
      if (argv[i] != "--mca" || argv[i + 1] == "btl_tcp_if_include") continue;
      EXPECT_EQ(file[argv[i + 1]], argv[i + 2]) << argv[i + 1];
      ++settings;
    }
    EXPECT_GE(settings, 7);
    EXPECT_THAT(argv, testing::IsSupersetOf({"--oversubscribe", "--bind-to"}));
  }
  EXPECT_EQ(file["rmaps_base_oversubscribe"], "1");
  EXPECT_EQ(file["hwloc_base_binding_policy"], "none");
  EXPECT_EQ(file["rmaps_base_mapping_policy"], "slot");
}

TEST(LaunchTest, GroupsOfOneMachineAreToldWhichTheyAre) {
  EngineConfig config;
  config.tensor_parallel_size = 2;
  const auto alone = group_launch(config, "/bin", "127.0.0.1:1", "one").argv;
  EXPECT_THAT(alone, testing::Each(testing::Not(HasSubstr("data-parallel"))));
  config.data_parallel_size = 3;
  const auto third = group_launch(config, "/bin", "127.0.0.1:1", "three", 2).argv;
  EXPECT_THAT(third,
              testing::IsSupersetOf({"-np", "2", "--data-parallel-rank=2",
                                     "--data-parallel-size-local=3", "--instance-id=three"}));
  EXPECT_THAT(coordinator_launch(config, "/bin").argv, testing::Contains("--data-parallel-size=3"));
  config.data_parallel_size_local = 1;
  EXPECT_THAT(group_launch(config, "/bin", "127.0.0.1:1", "one").argv,
              testing::Each(testing::Not(HasSubstr("data-parallel"))));
}

}  // namespace
}  // namespace quire
