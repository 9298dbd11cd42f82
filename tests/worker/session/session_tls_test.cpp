// A rank over mutual TLS: whom it trusts, and who is trusted. The coordinator is a script behind
// gRPC's own TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/certificates.h"
#include "tests/worker/session/session_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

class SessionTlsTest : public SessionTest {
 protected:
  std::shared_ptr<grpc::ServerCredentials> mutual(const TlsPem& own) {
    grpc::SslServerCredentialsOptions tls(
        GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    tls.pem_root_certs = own.ca;
    tls.pem_key_cert_pairs = {{own.key, own.cert}};
    return grpc::SslServerCredentials(tls);
  }

  // How a rank ends that presents `own` (and expects `name`) to a coordinator that welcomes and
  // drains whoever comes.
  absl::Status attach(std::shared_ptr<grpc::ServerCredentials> coordinators, const TlsPem& own,
                      const std::string& name = "",
                      absl::Duration patience = absl::Milliseconds(500)) {
    FakeCoordinator coordinator(
        [this](const v1::Hello&, AttachStream& stream) {
          ++attached_;
          send_welcome(stream, 8);
          send_drain(stream);
          read_to_end(stream);
          return grpc::Status::OK;
        },
        0, std::move(coordinators));
    SessionOptions with = options(coordinator.address());
    with.coordinator.tls = own;
    with.coordinator.tls_name = name;
    with.patience = patience;
    const auto rank = load();
    return run_session(*rank, with);
  }

  Authority authority_;
  std::atomic<int> attached_ = 0;
};

constexpr absl::Duration kLong = absl::Minutes(10);  // what must not be waited for

TEST_F(SessionTlsTest, BothShowACertificateOfTheSameAuthority) {
  const absl::Status status = attach(mutual(authority_.issue_pem("coordinator")),
                                     authority_.issue_pem("worker"), "", kLong);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(attached_, 1);
}

TEST_F(SessionTlsTest, ACoordinatorOfAnotherAuthorityGetsNoHello) {
  Authority other("Another Authority");
  const absl::Status status =
      attach(mutual(other.issue_pem("coordinator")), authority_.issue_pem("worker"), "", kLong);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("--grpc-ssl-ca-certs"));
  EXPECT_EQ(attached_, 0);
}

TEST_F(SessionTlsTest, TheCertificatesNameMustBeTheOneDialledOrTheOneGiven) {
  const auto coordinator = [this] {
    return mutual(authority_.issue_pem("coordinator", "DNS:quire.example.org"));
  };
  const absl::Status status = attach(coordinator(), authority_.issue_pem("worker"), "", kLong);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("--grpc-ssl-server-name"));
  EXPECT_EQ(attached_, 0);
  EXPECT_TRUE(
      attach(coordinator(), authority_.issue_pem("worker"), "quire.example.org", kLong).ok());
}

TEST_F(SessionTlsTest, AWorkerWithoutTheRightCertificateIsNotHeard) {
  Authority other("Another Authority");
  TlsPem stranger = other.issue_pem("worker");
  stranger.ca = authority_.issue_pem("x").ca;  // it trusts the coordinator all right
  for (const TlsPem& own : {TlsPem{}, stranger}) {
    const absl::Status status = attach(mutual(authority_.issue_pem("coordinator")), own);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  }
  EXPECT_EQ(attached_, 0);
}

TEST_F(SessionTlsTest, AWorkerWithTlsTellsAPlainCoordinatorNothing) {
  const absl::Status status = attach(nullptr, authority_.issue_pem("worker"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(attached_, 0);
}

}  // namespace
}  // namespace quire::test
