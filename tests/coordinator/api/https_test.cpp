// The HTTP server behind TLS: the same answers, and who is not let in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <csignal>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/api/http_server.h"
#include "tests/certificates.h"
#include "tests/coordinator/api/http_client.h"

namespace quire::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// Blocking, over the socket of an HttpClient's kind: one connection, bytes in and out.
class TlsClient {
 public:
  struct Options {
    std::string ca;                    // file; empty: trusts everybody
    TlsFiles own{};                    // empty: none
    int max_version = TLS1_3_VERSION;  // and no lower limit of ours
    std::string ciphers{};
  };
  TlsClient(int port, const Options& options) : context_(SSL_CTX_new(TLS_client_method())) {
    signal(SIGPIPE, SIG_IGN);  // a BIO writes without MSG_NOSIGNAL, a goodbye at its end too
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context_, options.max_version);
    SSL_CTX_set_security_level(context_, 0);  // offers what a server must refuse
    if (!options.ciphers.empty()) SSL_CTX_set_cipher_list(context_, options.ciphers.c_str());
    if (!options.own.cert.empty()) {
      SSL_CTX_use_certificate_chain_file(context_, options.own.cert.c_str());
      SSL_CTX_use_PrivateKey_file(context_, options.own.key.c_str(), SSL_FILETYPE_PEM);
    }
    if (!options.ca.empty()) {
      SSL_CTX_load_verify_locations(context_, options.ca.c_str(), nullptr);
      SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    }
    bio_ = BIO_new_ssl_connect(context_);
    BIO_get_ssl(bio_, &ssl_);
    BIO_set_conn_hostname(bio_, absl::StrCat("127.0.0.1:", port).c_str());
    connected_ = BIO_do_connect(bio_) == 1 && BIO_do_handshake(bio_) == 1;
  }
  ~TlsClient() {
    BIO_free_all(bio_);
    SSL_CTX_free(context_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool connected() const { return connected_; }
  std::string version() const { return SSL_get_version(ssl_); }
  bool send(const std::string& text) {
    return connected_ && BIO_write(bio_, text.data(), static_cast<int>(text.size())) ==
                             static_cast<int>(text.size());
  }
  // To the end of the stream: the server must be asked to close. `orderly`: its end was announced.
  std::string read_all(bool* orderly = nullptr) {
    std::string all;
    char bytes[4096];
    int count = 0;
    while ((count = BIO_read(bio_, bytes, sizeof bytes)) > 0) {
      all.append(bytes, static_cast<std::size_t>(count));
    }
    if (orderly != nullptr) *orderly = (SSL_get_shutdown(ssl_) & SSL_RECEIVED_SHUTDOWN) != 0;
    return all;
  }

 private:
  SSL_CTX* context_;
  BIO* bio_ = nullptr;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
};

const char* const kClose = "Connection: close\r\n";

class HttpsTest : public ::testing::Test {
 protected:
  void start(ClientCertificates wanted = ClientCertificates::kNone, HttpLimits limits = {}) {
    HttpTls tls{authority_.issue_pem("server"), wanted};
    if (wanted == ClientCertificates::kNone) tls.pem.ca.clear();
    auto server = HttpServer::start_with(
        [](Exchange& exchange) {
          const HttpRequest& request = exchange.request();
          if (request.path != "/events") {
            return exchange.respond({.body = absl::StrCat(request.path, " ", request.body.size())});
          }
          exchange.start_events();
          for (int i = 0; i < 1000; ++i) exchange.send_event(absl::StrCat("event ", i));
          exchange.end_events();
        },
        "127.0.0.1", 0, limits, tls);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string ask(const std::string& request, const TlsClient::Options& options) {
    TlsClient client(server_->port(), options);
    client.send(request);
    return client.read_all();
  }
  TlsClient::Options trusting() { return {authority_.ca_file()}; }

  Authority authority_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpsTest, AnswersAsOverPlainHttp) {
  start();
  TlsClient client(server_->port(), trusting());
  ASSERT_TRUE(client.connected());
  ASSERT_TRUE(client.send(get("/a")));
  ASSERT_TRUE(client.send(post("/b", std::string(3 << 20, 'x'))));
  ASSERT_TRUE(client.send(get("/events", kClose)));
  bool orderly = false;
  const std::string all = client.read_all(&orderly);
  EXPECT_THAT(all, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("/a 0"),
                         HasSubstr(absl::StrCat("/b ", 3 << 20)), HasSubstr("data: event 999\n")));
  EXPECT_THAT(all, testing::EndsWith("0\r\n\r\n"));
  EXPECT_TRUE(orderly) << "the end is announced: nobody can cut an answer short unseen";
}

TEST_F(HttpsTest, SpeaksTls12AndTls13AndNothingOlder) {
  start();
  EXPECT_EQ(TlsClient(server_->port(), trusting()).version(), "TLSv1.3");
  TlsClient::Options old = trusting();
  old.max_version = TLS1_2_VERSION;
  EXPECT_EQ(TlsClient(server_->port(), old).version(), "TLSv1.2");
  old.ciphers = "AES128-SHA:ECDHE-ECDSA-AES128-SHA";  // no forward secrecy; no authentication tag
  EXPECT_FALSE(TlsClient(server_->port(), old).connected());
  old.ciphers.clear();
  old.max_version = TLS1_1_VERSION;
  EXPECT_FALSE(TlsClient(server_->port(), old).connected());
  EXPECT_THAT(ask(get("/still", kClose), trusting()), HasSubstr("/still 0"));
}

TEST_F(HttpsTest, ACertificateIsRequiredWhereItIs) {
  start(ClientCertificates::kRequired);
  // TLS 1.3 tells a client of its refusal with the first answer it reads.
  EXPECT_EQ(ask(get("/", kClose), trusting()), "");
  Authority others;
  EXPECT_EQ(ask(get("/", kClose), {authority_.ca_file(), others.issue("client")}), "");
  EXPECT_THAT(ask(get("/in", kClose), {authority_.ca_file(), authority_.issue("client")}),
              HasSubstr("/in 0"));
  EXPECT_EQ(
      ask(get("/", kClose), {authority_.ca_file(), authority_.issue("late", "DNS:localhost", -2)}),
      "")
      << "an expired one";
}

TEST_F(HttpsTest, AnOptionalCertificateMustStillBeGood) {
  start(ClientCertificates::kOptional);
  EXPECT_THAT(ask(get("/none", kClose), trusting()), HasSubstr("/none 0"));
  Authority others;
  EXPECT_EQ(ask(get("/", kClose), {authority_.ca_file(), others.issue("client")}), "");
}

TEST_F(HttpsTest, PlainHttpAndSilenceOnTheTlsPortEnd) {
  HttpLimits limits;
  limits.header = std::chrono::milliseconds(200);
  start(ClientCertificates::kNone, limits);
  HttpClient plain(server_->port()), silent(server_->port());
  EXPECT_TRUE(plain.send(get("/")));
  EXPECT_TRUE(plain.wait_closed());
  EXPECT_TRUE(silent.wait_closed()) << "a handshake has as long as a header";
  const absl::Time deadline = absl::Now() + kHttpPatience;
  while (server_->num_connections() > 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(server_->num_connections(), 0);
}

TEST_F(HttpsTest, ARefusedBodyStillBringsItsAnswer) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  start(ClientCertificates::kNone, limits);
  TlsClient client(server_->port(), trusting());
  ASSERT_TRUE(client.send(post("/large", std::string(100000, 'x'))));
  EXPECT_THAT(client.read_all(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpsTest, StopsWithConnectionsInEveryState) {
  start();
  const HttpClient mute(server_->port());
  TlsClient idle(server_->port(), trusting()), half(server_->port(), trusting());
  ASSERT_TRUE(half.send("GET / HTT"));
  server_->stop();
  EXPECT_EQ(server_->num_connections(), 0);
}

}  // namespace
}  // namespace quire::test
