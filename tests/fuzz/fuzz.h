// What the fuzz targets share. A target is one file that defines LLVMFuzzerTestOneInput over one
// door through which bytes of strangers come in; besides crashes and sanitizer reports it checks
// what the door promises, with QUIRE_CHECK. Targets keep no state from one input to the next.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace quire::fuzz {

inline absl::string_view view(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// The part before the first NUL, and the part behind it (empty if there is none).
inline std::pair<absl::string_view, absl::string_view> halves(absl::string_view text) {
  const std::size_t at = text.find('\0');
  if (at == absl::string_view::npos) return {text, {}};
  return {text.substr(0, at), text.substr(at + 1)};
}

// A file in memory for code that opens files by path.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("fuzz", MFD_CLOEXEC)) { QUIRE_CHECK_GE(fd_, 0); }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void assign(absl::string_view bytes) {
    QUIRE_CHECK_EQ(ftruncate(fd_, 0), 0);
    QUIRE_CHECK_EQ(pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  int fd_;
};

}  // namespace quire::fuzz
