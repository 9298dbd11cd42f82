// gRPC reports a failed bind only in its log; so the address is tried once before it.
#include "coordinator/listen.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// 0, or the errno of binding.
int try_bind(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));  // as servers do after TIME_WAIT
  const bool bound = bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, 1) == 0;
  const int error = bound ? 0 : errno;
  close(fd);
  return error;
}

}  // namespace

absl::Status check_can_listen(const std::string& host, int port, const char* host_option,
                              const char* port_option) {
  if (port == 0) return absl::OkStatus();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (failed != 0) {
    return absl::UnavailableError(absl::StrCat(host_option, " ", host,
                                               " is not an address of this machine (",
                                               gai_strerror(failed), ")."));
  }
  const absl::Cleanup release = [found] { freeaddrinfo(found); };
  const int error = try_bind(*found);
  if (error == 0) return absl::OkStatus();
  if (error == EADDRINUSE) {
    return absl::UnavailableError(absl::StrCat(
        "Port ", port, " on ", host, " is in use by another program; stop that, or choose ",
        "another port with ", port_option, " (0 takes any free one)."));
  }
  return absl::UnavailableError(absl::StrCat("Cannot listen on ", join_host_port(host, port), " (",
                                             std::strerror(error), "); choose another ",
                                             host_option, " or ", port_option, "."));
}

std::string join_host_port(const std::string& host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

std::string reachable_address(const std::string& host, int port) {
  if (host == "0.0.0.0") return join_host_port("127.0.0.1", port);
  if (host == "::") return join_host_port("::1", port);
  return join_host_port(host, port);
}

}  // namespace quire
