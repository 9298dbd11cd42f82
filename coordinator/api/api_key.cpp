// The API key: only digests are compared, in time that does not depend on where they differ.
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "coordinator/api/service.h"

namespace quire {
namespace {

std::array<unsigned char, 32> sha256(absl::string_view text) {
  std::array<unsigned char, 32> digest{};
  static_assert(digest.size() == SHA256_DIGEST_LENGTH);
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

}  // namespace

ApiKey::ApiKey(absl::string_view key) : required_(!key.empty()), digest_(sha256(key)) {}

bool ApiKey::accepts(absl::string_view authorization) const {
  if (!required_) return true;
  constexpr absl::string_view kScheme = "Bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return false;
  authorization.remove_prefix(kScheme.size());
  const auto given = sha256(absl::StripAsciiWhitespace(authorization));
  return CRYPTO_memcmp(given.data(), digest_.data(), digest_.size()) == 0;
}

}  // namespace quire
