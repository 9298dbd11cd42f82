// Who may listen where: gRPC on loopback, behind mutual TLS, or on a network called private.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/config.h"

namespace quire {
namespace {

using testing::HasSubstr;

absl::StatusOr<ParsedConfig> parse(std::vector<const char*> argv,
                                   ProgramMask program = kCoordinator) {
  argv.insert(argv.begin(), {"program", "m.gguf"});
  return parse_config(program, argv);
}

std::string refusal(const std::vector<const char*>& argv) {
  const auto parsed = parse(argv);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

TEST(NetworkTest, LoopbackIsToldByItsText) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "::1", "localhost"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "127.example.org", "node1", "128.0.0.1",
                           "127.0.0.1.example.org", "", "fe80::1", "2130706433"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

TEST(NetworkTest, BothListenOnLoopbackByDefault) {
  const EngineConfig config = parse({})->config;
  EXPECT_TRUE(is_loopback(config.host));
  EXPECT_TRUE(is_loopback(config.grpc_host));
}

TEST(NetworkTest, HttpMayBeOpenWhileGrpcStaysOnLoopback) {
  const auto parsed = parse({"--host", "0.0.0.0"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config.grpc_host, "127.0.0.1");
}

TEST(NetworkTest, OpenGrpcNeedsMutualTls) {
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "node1"}) {
    EXPECT_THAT(refusal({"--grpc-host", host}),
                HasSubstr(std::string("--grpc-host is ") + host + ", which other machines reach"));
  }
  EXPECT_TRUE(parse({"--grpc-host", "0.0.0.0", "--grpc-ssl-certfile", "c", "--grpc-ssl-keyfile",
                     "k", "--grpc-ssl-ca-certs", "a"})
                  .ok());
}

TEST(NetworkTest, OrAPrivateNetworkAndASecret) {
  EXPECT_THAT(refusal({"--grpc-host", "10.0.0.1", "--grpc-insecure-private-network"}),
              HasSubstr("needs --worker-secret-file"));
  EXPECT_TRUE(parse({"--grpc-host", "10.0.0.1", "--grpc-insecure-private-network",
                     "--worker-secret-file", "s"})
                  .ok());
  EXPECT_THAT(refusal({"--grpc-host", "10.0.0.1", "--worker-secret-file", "s"}),
              HasSubstr("without TLS"))
      << "a secret alone says nothing of the network";
}

TEST(NetworkTest, GrpcHasMutualTlsOrNone) {
  const std::vector<std::vector<const char*>> parts = {
      {"--grpc-ssl-certfile", "c"},
      {"--grpc-ssl-certfile", "c", "--grpc-ssl-keyfile", "k"},
      {"--grpc-ssl-ca-certs", "a"}};
  for (const auto& part : parts) EXPECT_THAT(refusal(part), HasSubstr("mutual TLS or none"));
  const auto worker = parse({"--grpc-ssl-server-name", "n"}, kWorker);
  EXPECT_THAT(std::string(worker.status().message()), HasSubstr("no TLS on the gRPC port"));
}

TEST(NetworkTest, HttpsNeedsItsPairAndClientCertificatesTheirAuthority) {
  EXPECT_THAT(refusal({"--ssl-certfile", "c"}), HasSubstr("--ssl-keyfile is missing"));
  EXPECT_THAT(refusal({"--ssl-keyfile", "k"}), HasSubstr("--ssl-certfile is missing"));
  EXPECT_THAT(refusal({"--ssl-cert-reqs", "2", "--ssl-ca-certs", "a"}), HasSubstr("need HTTPS"));
  EXPECT_THAT(refusal({"--ssl-certfile", "c", "--ssl-keyfile", "k", "--ssl-cert-reqs", "2"}),
              HasSubstr("--ssl-ca-certs is not given"));
  EXPECT_THAT(refusal({"--ssl-certfile", "c", "--ssl-keyfile", "k", "--ssl-ca-certs", "a"}),
              HasSubstr("--ssl-cert-reqs is 0"));
  EXPECT_THAT(refusal({"--ssl-cert-reqs", "3"}), HasSubstr("[0, 2]"));
  EXPECT_TRUE(parse({"--ssl-certfile", "c", "--ssl-keyfile", "k", "--ssl-ca-certs", "a",
                     "--ssl-cert-reqs", "1"})
                  .ok());
}

TEST(NetworkTest, RanksAreHandedTheirFiles) {
  const auto serve = parse({"--grpc-ssl-certfile", "c", "--grpc-ssl-keyfile", "k",
                            "--grpc-ssl-ca-certs", "a", "--grpc-ssl-server-name", "n"},
                           kServe);
  ASSERT_TRUE(serve.ok()) << serve.status();
  const auto worker = to_arguments(serve->config, kWorker);
  EXPECT_THAT(worker, testing::IsSupersetOf({"--grpc-ssl-certfile=c", "--grpc-ssl-keyfile=k",
                                             "--grpc-ssl-ca-certs=a", "--grpc-ssl-server-name=n"}));
}

}  // namespace
}  // namespace quire
