// What one client may cost the HTTP server. The defaults suit the open internet; tests shorten the
// times.
#pragma once

#include <chrono>
#include <cstddef>

namespace quire {

struct HttpLimits {
  std::size_t header_bytes = 16 << 10;
  std::size_t body_bytes = 8 << 20;
  std::size_t unsent_bytes = 1 << 20;       // of one stream, beyond what the kernel holds
  int connections = 20000;                  // more are closed at once
  std::chrono::milliseconds header{10000};  // from a request's first byte to its last header
  std::chrono::milliseconds body{60000};    // from there to the end of the body
  std::chrono::milliseconds idle{75000};    // between requests of a connection
  std::chrono::milliseconds write{30000};   // one write, then the client counts as not reading
  std::chrono::milliseconds quiet{10000};  // of an event stream, then it gets a comment: see README
  std::chrono::milliseconds linger{2000};  // for the other side's close, after ours
};

}  // namespace quire
