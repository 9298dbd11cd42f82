// OpenSSL's calls, in the order in which it wants them.
#include "tests/certificates.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace quire::test {
namespace {

constexpr long kDay = 86400;

std::string text_of(BIO* bio) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  std::string text(bytes, static_cast<std::size_t>(size));
  BIO_free(bio);
  return text;
}

std::string to_pem(X509* certificate) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  return text_of(bio);
}

std::string to_pem(EVP_PKEY* key) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  return text_of(bio);
}

void add_extension(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  QUIRE_CHECK(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

X509* make_certificate(const std::string& who, EVP_PKEY* key, long serial, int days) {
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);  // that is 3
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -kDay + (days < 0 ? days * kDay : 0));
  X509_gmtime_adj(X509_getm_notAfter(certificate), days * kDay);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(who.c_str()), -1, -1, 0);
  return certificate;
}

}  // namespace

Authority::Authority(const std::string& name) {
  std::string folder = (std::filesystem::temp_directory_path() / "quire-ca-XXXXXX").string();
  QUIRE_CHECK(mkdtemp(folder.data()) != nullptr);
  folder_ = folder;
  key_ = EVP_EC_gen("P-256");
  certificate_ = make_certificate(name, key_, serial_++, 30);
  X509_set_issuer_name(certificate_, X509_get_subject_name(certificate_));
  add_extension(certificate_, certificate_, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(certificate_, certificate_, NID_subject_key_identifier, "hash");
  QUIRE_CHECK(X509_sign(certificate_, key_, EVP_sha256()) > 0);
  ca_file_ = write("ca.pem", to_pem(certificate_));
}

Authority::~Authority() {
  X509_free(certificate_);
  EVP_PKEY_free(key_);
  std::filesystem::remove_all(folder_);
}

TlsFiles Authority::issue(const std::string& who, const std::string& names, int days) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = make_certificate(who, key, serial_++, days);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate_));
  add_extension(certificate, certificate_, NID_subject_alt_name, names);
  add_extension(certificate, certificate_, NID_ext_key_usage, "serverAuth,clientAuth");
  QUIRE_CHECK(X509_sign(certificate, key_, EVP_sha256()) > 0);
  const TlsFiles files = {write(absl::StrCat(who, ".pem"), to_pem(certificate)),
                          write(absl::StrCat(who, ".key"), to_pem(key)), ca_file_};
  X509_free(certificate);
  EVP_PKEY_free(key);
  return files;
}

TlsPem Authority::issue_pem(const std::string& who, const std::string& names) {
  const auto pem = read_tls(issue(who, names), {"cert", "key", "ca"});
  QUIRE_CHECK(pem.ok());
  return *pem;
}

std::string Authority::write(const std::string& name, const std::string& text) const {
  const std::filesystem::path path = folder_ / name;
  std::ofstream(path) << text;
  chmod(path.c_str(), 0600);
  return path;
}

}  // namespace quire::test
