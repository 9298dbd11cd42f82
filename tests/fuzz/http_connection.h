// One connection of the HTTP server over a pair of sockets, all on the calling thread: the real
// session and routes, with an engine whose workers never came. So every request is parsed, checked
// and tokenized, and then answered 503 at the latest; nothing is generated.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace quire::fuzz {

// Sends `bytes` in parts of `part` bytes, then no more; returns all that came back once the server
// has closed the connection. Aborts if it does not, or if it answers something that is no HTTP.
std::string talk(absl::string_view bytes, std::size_t part);

}  // namespace quire::fuzz
