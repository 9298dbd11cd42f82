// The parts of http.h that need no socket: header look-up, path normalisation, names.
#include "coordinator/api/http.h"

#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace quire {

absl::string_view HttpRequest::header(absl::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

int HttpRequest::count(absl::string_view name) const {
  int count = 0;
  for (const auto& [key, value] : headers) count += key == name ? 1 : 0;
  return count;
}

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

absl::StatusOr<std::string> percent_decode(absl::string_view path) {
  std::string out;
  for (std::size_t i = 0; i < path.size(); ++i) {
    char c = path[i];
    if (c == '%') {
      const int high = i + 1 < path.size() ? hex_digit(path[i + 1]) : -1;
      const int low = i + 2 < path.size() ? hex_digit(path[i + 2]) : -1;
      if (high < 0 || low < 0) {
        return absl::InvalidArgumentError(
            "the path holds a '%' that two hexadecimal digits do not follow");
      }
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return absl::InvalidArgumentError("the path holds a control character");
    }
    out.push_back(c);
  }
  return out;
}

}  // namespace

absl::StatusOr<std::string> normalise_path(absl::string_view target) {
  for (absl::string_view scheme : {"http://", "https://"}) {  // absolute form, as proxies send it
    if (!absl::StartsWithIgnoreCase(target, scheme)) continue;
    const std::size_t slash = target.find('/', scheme.size());
    target = slash == absl::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find_first_of("?#"));
  if (!absl::StartsWith(target, "/")) {
    return absl::InvalidArgumentError("the request target must start with '/'");
  }
  auto decoded = percent_decode(target);
  if (!decoded.ok()) return decoded.status();
  std::vector<absl::string_view> kept;
  for (absl::string_view part : absl::StrSplit(*decoded, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (kept.empty()) return absl::InvalidArgumentError("the path climbs above the root");
      kept.pop_back();
      continue;
    }
    kept.push_back(part);
  }
  return absl::StrCat("/", absl::StrJoin(kept, "/"));
}

absl::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Status";
  }
}

std::string random_hex(int num_bytes) {
  std::random_device device;
  std::string bytes;
  for (int i = 0; i < num_bytes; ++i) bytes.push_back(static_cast<char>(device() & 0xff));
  return absl::BytesToHexString(bytes);
}

void Waker::wake() {
  const std::lock_guard lock(mutex_);
  if (pending_ || !post_) return;
  pending_ = true;
  post_();
}

void Waker::served() {
  const std::lock_guard lock(mutex_);
  pending_ = false;
}

void Waker::close() {
  const std::lock_guard lock(mutex_);
  post_ = nullptr;
}

}  // namespace quire
