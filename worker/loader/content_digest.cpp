// Pages of mapped files, hashed in order.
#include "worker/loader/content_digest.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/hash.h"
#include "common/mapped_file.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kMostPages = 65536;

}  // namespace

absl::StatusOr<std::uint64_t> content_digest(const ModelFile& file) {
  std::vector<MappedFile> files;
  std::size_t pages = 0;
  for (const std::string& path : file.files) {
    QUIRE_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::open(path));
    pages += mapped.bytes().size() / kPage + 1;
    files.push_back(std::move(mapped));
  }
  const std::size_t stride = kPage * ((pages + kMostPages - 1) / kMostPages);
  std::uint64_t digest = 0;
  for (const MappedFile& mapped : files) {
    const absl::string_view bytes = mapped.bytes();
    digest = hash64(digest, absl::StrCat(bytes.size()));
    for (std::size_t at = 0; at < bytes.size(); at += stride) {
      digest = hash64(digest, bytes.substr(at, kPage));
    }
  }
  return digest;
}

}  // namespace quire
