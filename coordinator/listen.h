// Addresses a server listens on: a check with a clear sentence, and how to write them.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace quire {

// Unavailable, naming the two options, address and reason, when `host`:`port` cannot be listened
// on. Port 0 is always free.
absl::Status check_can_listen(const std::string& host, int port, const char* host_option,
                              const char* port_option);

// "127.0.0.1:8000", "[::1]:8000".
std::string join_host_port(const std::string& host, int port);
// The same for a client on this machine: a wildcard address becomes loopback.
std::string reachable_address(const std::string& host, int port);

}  // namespace quire
