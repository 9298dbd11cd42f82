// API keys: only digests are compared, in time that does not depend on where they differ.
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

ApiKeys::ApiKeys(absl::string_view key, absl::Span<const TenantEntry> tenants) {
  for (const TenantEntry& tenant : tenants) digests_.push_back(sha256(tenant.key));
  if (tenants.empty() && !key.empty()) digests_.push_back(sha256(key));
}

std::optional<int> ApiKeys::tenant_of(absl::string_view authorization) const {
  if (!required()) return 0;
  constexpr absl::string_view kScheme = "Bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return std::nullopt;
  authorization.remove_prefix(kScheme.size());
  const auto given = sha256(absl::StripAsciiWhitespace(authorization));
  std::optional<int> found;
  for (std::size_t i = 0; i < digests_.size(); ++i) {  // all of them, whichever it is
    if (CRYPTO_memcmp(given.data(), digests_[i].data(), given.size()) == 0) {
      found = static_cast<int>(i);
    }
  }
  return found;
}

}  // namespace quire
