// Certificates and keys that cannot be used are refused in a sentence, before anything listens.
#include "common/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/certificates.h"

namespace quire {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr TlsNames kNames = {"--c", "--k", "--a"};

class TlsTest : public testing::Test {
 protected:
  std::string refusal(const TlsFiles& files) {
    const auto read = read_tls(files, kNames);
    EXPECT_FALSE(read.ok());
    EXPECT_THAT(std::string(read.status().message()), Not(HasSubstr("PRIVATE KEY-----\n")));
    return std::string(read.status().message());
  }
  test::Authority authority_;
};

TEST_F(TlsTest, WhatBelongsTogetherIsRead) {
  const TlsFiles files = authority_.issue("server");
  const auto pem = read_tls(files, kNames);
  ASSERT_TRUE(pem.ok()) << pem.status();
  EXPECT_THAT(pem->cert, HasSubstr("BEGIN CERTIFICATE"));
  EXPECT_THAT(pem->key, HasSubstr("PRIVATE KEY"));
  EXPECT_THAT(pem->ca, HasSubstr("BEGIN CERTIFICATE"));
  const auto nothing = read_tls({}, kNames);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(nothing->cert + nothing->key + nothing->ca, "");
  EXPECT_TRUE(read_tls({"", "", files.ca}, kNames).ok()) << "who only checks others";
}

TEST_F(TlsTest, HalfAPairIsRefused) {
  const TlsFiles files = authority_.issue("server");
  EXPECT_THAT(refusal({files.cert, "", ""}), HasSubstr("--c and --k go together; --k is missing"));
  EXPECT_THAT(refusal({"", files.key, ""}), HasSubstr("--c is missing"));
}

TEST_F(TlsTest, FilesThatAreNotThereAreNamed) {
  TlsFiles files = authority_.issue("server");
  files.key = "/no/such/key.pem";
  const auto read = read_tls(files, kNames);
  EXPECT_EQ(read.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("--k: Cannot open /no/such/key.pem"));
  EXPECT_THAT(refusal({"", "", "/tmp"}), HasSubstr("--a: /tmp is not a regular file"));
}

TEST_F(TlsTest, FilesOfSomethingElseAreRefused) {
  const TlsFiles files = authority_.issue("server");
  const std::string text = authority_.write("text", "not a certificate\n");
  EXPECT_THAT(refusal({text, files.key, ""}), HasSubstr("--c: " + text + " holds no certificate"));
  EXPECT_THAT(refusal({files.cert, text, ""}), HasSubstr("--k: " + text + " holds no private key"));
  EXPECT_THAT(refusal({files.cert, files.cert, ""}), HasSubstr("holds no private key"));
  EXPECT_THAT(refusal({"", "", text}), HasSubstr("--a: " + text + " holds no certificate"));
  const std::string broken =
      authority_.write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  EXPECT_THAT(refusal({"", "", broken}), HasSubstr("certificate in PEM form"));
  const std::string large = authority_.write("large", std::string(5 << 20, 'x'));
  EXPECT_THAT(refusal({"", "", large}), HasSubstr("is longer than"));
}

TEST_F(TlsTest, AKeyOfAnotherCertificateIsRefused) {
  const TlsFiles one = authority_.issue("one"), other = authority_.issue("other");
  EXPECT_THAT(
      refusal({one.cert, other.key, ""}),
      AllOf(HasSubstr("--k: " + other.key), HasSubstr("is not the key"), HasSubstr(one.cert)));
}

TEST_F(TlsTest, AnExpiredCertificateIsRefused) {
  const TlsFiles files = authority_.issue("old", "DNS:localhost", -2);
  EXPECT_THAT(refusal(files), HasSubstr("--c: " + files.cert + " has expired"));
}

TEST_F(TlsTest, AKeyThatEverybodyCanReadIsRefused) {
  const TlsFiles files = authority_.issue("server");
  chmod(files.key.c_str(), 0644);
  EXPECT_THAT(refusal(files), AllOf(HasSubstr("--k: " + files.key), HasSubstr("mode 0644")));
  chmod(files.key.c_str(), 0640);
  EXPECT_TRUE(read_tls(files, kNames).ok());
}

TEST_F(TlsTest, AKeyWithAPassphraseAsksNobody) {
  const TlsFiles files = authority_.issue("server");
  // An encrypted key as `openssl genpkey -aes-128-cbc` writes it; what it holds does not matter.
  const std::string key = authority_.write("locked", R"(-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhJvJ4g3JzJ2gICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEJ8qzqJb1o1Rr0Qm0nQ3YQwEgZAB
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END ENCRYPTED PRIVATE KEY-----
)");
  EXPECT_THAT(refusal({files.cert, key, ""}), HasSubstr("is protected by a passphrase"));
}

}  // namespace
}  // namespace quire
