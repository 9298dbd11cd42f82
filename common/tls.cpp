// Reading and checking; the rules are in tls.h.
#include "common/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/mapped_file.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kMaxPemBytes = 4 << 20;  // a bundle of all public authorities is 200 KB

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;

template <typename... Reason>
absl::Status refuse(const char* option, const std::string& file, const Reason&... reason) {
  ERR_clear_error();  // what OpenSSL noted on the way is of no use to whoever comes next
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", file, " ", reason...));
}

// Never asks a terminal for a passphrase.
int no_passphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

Bio open_text(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

absl::StatusOr<std::string> read_pem(const char* option, const std::string& file) {
  absl::StatusOr<MappedFile> mapped = MappedFile::open(file);
  if (!mapped.ok()) {
    return absl::Status(mapped.status().code(),
                        absl::StrCat(option, ": ", mapped.status().message()));
  }
  if (mapped->bytes().size() > kMaxPemBytes) {
    return refuse(option, file, "is longer than ", kMaxPemBytes, " bytes; a PEM file is expected.");
  }
  return std::string(mapped->bytes());
}

absl::StatusOr<std::vector<Certificate>> parse_certificates(const char* option,
                                                            const std::string& file,
                                                            const std::string& pem) {
  std::vector<Certificate> certificates;
  const Bio text = open_text(pem);
  while (X509* next = PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(next);
  }
  const bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!ended || certificates.empty()) {
    return refuse(option, file, "holds ", certificates.empty() ? "no" : "a broken",
                  " certificate in PEM form (-----BEGIN CERTIFICATE-----).");
  }
  ERR_clear_error();
  return certificates;
}

// What others can read is no secret; a group may be one's own (Debian's ssl-cert).
absl::Status check_mode(const char* option, const std::string& file) {
  struct stat info {};
  if (stat(file.c_str(), &info) != 0 || (info.st_mode & S_IRWXO) == 0) return absl::OkStatus();
  return refuse(option, file, "can be read by every user of this machine (mode ",
                absl::StrFormat("%04o", info.st_mode & 07777),
                "); take that away (chmod 600), and make a new key if it was so for long.");
}

absl::StatusOr<Key> parse_key(const char* option, const std::string& file, const std::string& pem) {
  bool encrypted = false;
  Key key(PEM_read_bio_PrivateKey(open_text(pem).get(), nullptr, no_passphrase, &encrypted));
  if (key != nullptr) return key;
  if (encrypted) {
    return refuse(option, file,
                  "is protected by a passphrase, and there is nobody to ask; give a key without "
                  "one that only this user can read.");
  }
  return refuse(option, file, "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----).");
}

absl::Status check_pair(const TlsFiles& files, const TlsNames& names, const TlsPem& pem) {
  QUIRE_RETURN_IF_ERROR(check_mode(names.key, files.key));
  QUIRE_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                         parse_certificates(names.cert, files.cert, pem.cert));
  QUIRE_ASSIGN_OR_RETURN(const Key key, parse_key(names.key, files.key, pem.key));
  if (X509_check_private_key(chain[0].get(), key.get()) != 1) {
    return refuse(names.key, files.key, "is not the key of the first certificate of ", names.cert,
                  " ", files.cert, "; give the two that were made together.");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(chain[0].get())) < 0) {
    return refuse(names.cert, files.cert, "has expired; have it renewed.");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TlsPem> read_tls(const TlsFiles& files, const TlsNames& names) {
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(names.cert, " and ", names.key, " go together; ",
                                                   files.cert.empty() ? names.cert : names.key,
                                                   " is missing."));
  }
  TlsPem pem;
  if (!files.cert.empty()) {
    QUIRE_ASSIGN_OR_RETURN(pem.cert, read_pem(names.cert, files.cert));
    QUIRE_ASSIGN_OR_RETURN(pem.key, read_pem(names.key, files.key));
    QUIRE_RETURN_IF_ERROR(check_pair(files, names, pem));
  }
  if (!files.ca.empty()) {
    QUIRE_ASSIGN_OR_RETURN(pem.ca, read_pem(names.ca, files.ca));
    QUIRE_RETURN_IF_ERROR(parse_certificates(names.ca, files.ca, pem.ca).status());
  }
  return pem;
}

}  // namespace quire
