// A certificate authority for a test: keys and certificates that are made when the test runs, in a
// folder that goes with the object. Nothing of it is ever checked in.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <filesystem>
#include <memory>
#include <string>

#include "common/tls.h"

namespace quire::test {

class Authority {
 public:
  explicit Authority(const std::string& name = "Quire Test Authority");
  ~Authority();
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  // For `names` as OpenSSL writes them; valid from yesterday for `days` (below zero: expired). Good
  // for servers and clients alike. `ca` is this authority.
  TlsFiles issue(const std::string& who, const std::string& names = "DNS:localhost,IP:127.0.0.1",
                 int days = 30);
  TlsPem issue_pem(const std::string& who, const std::string& names = "DNS:localhost,IP:127.0.0.1");

  const std::string& ca_file() const { return ca_file_; }
  const std::filesystem::path& folder() const { return folder_; }
  // Writes a file into the folder, for its owner's eyes.
  std::string write(const std::string& name, const std::string& text) const;

 private:
  std::filesystem::path folder_;
  EVP_PKEY* key_ = nullptr;
  X509* certificate_ = nullptr;
  long serial_ = 1;
  std::string ca_file_;
};

}  // namespace quire::test
