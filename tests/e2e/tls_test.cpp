// `quire serve` with HTTPS and mutual TLS on its gRPC port: workers and clients with certificates
// are served, everybody else is not, and nothing that they send changes what others get.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/certificates.h"
#include "tests/e2e/server.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kPrompt[] = "The capital of France is";
constexpr char kGet[] =
    "import ssl, sys, urllib.request\n"
    "context = ssl.create_default_context(cafile=sys.argv[2])\n"
    "print(urllib.request.urlopen(sys.argv[1], timeout=20, context=context).read().decode())";

class TlsServer : public testing::Test {
 protected:
  std::vector<std::string> grpc_options(const TlsFiles& files) {
    return {"--grpc-ssl-certfile", files.cert, "--grpc-ssl-keyfile", files.key,
            "--grpc-ssl-ca-certs", files.ca};
  }
  CommandResult generate_with(const Server& server, const std::vector<std::string>& options) {
    std::vector<std::string> argv = {bin("quire"),  "generate",      "--server",
                                     server.grpc(), "--temperature", "0",
                                     "--raw",       "--max-tokens",  "4"};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.push_back(kPrompt);
    return run_command(argv);
  }
  CommandResult stranger(const Server& server, const std::vector<std::string>& options) {
    std::vector<std::string> argv = {bin("quire-worker"), demo_model(), "--rank",        "0",
                                     "--world-size",      "2",          "--instance-id", "stranger",
                                     "--coordinator",     server.grpc()};
    argv.insert(argv.end(), options.begin(), options.end());
    return run_command(argv, 30);
  }

  Authority authority_;
};

TEST_F(TlsServer, ServesThoseWithCertificatesAndNobodyElse) {
  QUIRE_NEED_DATA(demo_model());
  const TlsFiles files = authority_.issue("server");
  std::vector<std::string> options = grpc_options(files);
  options.insert(options.end(), {"--ssl-certfile", files.cert, "--ssl-keyfile", files.key});
  auto server = Server::start(demo_model(), 2, options);
  ASSERT_TRUE(server.ok()) << server.status();

  const TlsFiles client = authority_.issue("client");
  const std::vector<std::string> trusted = {"--ca",      client.ca, "--cert",
                                            client.cert, "--key",   client.key};
  const CommandResult answer = generate_with(**server, trusted);
  EXPECT_EQ(answer.exit_code, 0) << answer.output;
  EXPECT_THAT(answer.output, HasSubstr("Paris"));

  const std::string url = absl::StrCat("https://", (*server)->http(), "/v1/models");
  const std::vector<std::string> get = {"/usr/bin/python3", "-c", kGet, url};
  std::vector<std::string> knowing = get, misled = get;
  Authority other("Another Authority");
  knowing.push_back(authority_.ca_file());
  misled.push_back(other.ca_file());
  EXPECT_THAT(run_command(knowing).output, HasSubstr("\"object\":\"list\""));
  EXPECT_THAT(run_command(misled).output, HasSubstr("CERTIFICATE_VERIFY_FAILED"));
  EXPECT_THAT((*server)->get("/v1/models"), Not(HasSubstr("\"object\""))) << "plain HTTP";

  // Clients: in the clear, without a certificate, with one of somebody else's.
  const TlsFiles foreign = other.issue("client");
  for (const std::vector<std::string>& with :
       {std::vector<std::string>{},
        {"--ca", client.ca},
        {"--ca", client.ca, "--cert", foreign.cert, "--key", foreign.key}}) {
    const CommandResult refused = generate_with(**server, with);
    EXPECT_EQ(refused.exit_code, 1) << refused.output;
    EXPECT_THAT(refused.output, Not(HasSubstr("Paris")));
  }
  // A coordinator that a worker does not trust: it says so and does not try again.
  const CommandResult doubting = stranger(**server, grpc_options(other.issue("worker")));
  EXPECT_EQ(doubting.exit_code, 77) << doubting.output;
  EXPECT_THAT(doubting.output, HasSubstr("--grpc-ssl-ca-certs"));

  EXPECT_EQ(generate_with(**server, trusted).output, answer.output);
}

TEST_F(TlsServer, BadFilesAndOpenPortsAreRefusedAtOnce) {
  QUIRE_NEED_DATA(demo_model());
  const TlsFiles one = authority_.issue("one"), other = authority_.issue("other");
  const auto serve = [](std::vector<std::string> options) {
    options.insert(options.begin(),
                   {bin("quire"), "serve", demo_model(), "--port", "0", "--grpc-port", "0"});
    return run_command(options, 30);
  };
  const CommandResult mixed = serve({"--ssl-certfile", one.cert, "--ssl-keyfile", other.key});
  EXPECT_EQ(mixed.exit_code, 64) << mixed.output;
  EXPECT_THAT(mixed.output, HasSubstr("is not the key of the first certificate"));
  const CommandResult missing = serve({"--ssl-certfile", "/no/such", "--ssl-keyfile", other.key});
  EXPECT_EQ(missing.exit_code, 66) << missing.output;
  const CommandResult open = serve({"--grpc-host", "0.0.0.0"});
  EXPECT_EQ(open.exit_code, 64) << open.output;
  EXPECT_THAT(open.output, HasSubstr("--grpc-host is 0.0.0.0, which other machines reach"));
}

}  // namespace
}  // namespace quire::test
