// Certificates and keys, from files to PEM text that has been checked: that they parse, belong
// together, have not expired, and that nobody else can read the key. Every program that speaks TLS
// starts here; what the text means to gRPC or Asio is theirs. Read once, at start. No message
// holds a byte of a key.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/config.h"

namespace quire {

// Paths; empty: not given.
struct TlsFiles {
  std::string cert, key, ca;
};

// How the program calls them, for messages: "--ssl-certfile", ...
struct TlsNames {
  const char *cert, *key, *ca;
};

struct TlsPem {
  std::string cert;  // ours, then those between it and the root; empty: we present none
  std::string key;
  std::string ca;  // whose certificates we accept; empty: nobody is asked for one
};

// NotFound / PermissionDenied for a file that cannot be opened, InvalidArgument for anything else
// that is wrong with it; each a sentence with the option and the file.
absl::StatusOr<TlsPem> read_tls(const TlsFiles& files, const TlsNames& names);

// The gRPC port's, for coordinator and workers.
inline constexpr TlsNames kGrpcTlsNames = {"--grpc-ssl-certfile", "--grpc-ssl-keyfile",
                                           "--grpc-ssl-ca-certs"};
inline TlsFiles grpc_files(const EngineConfig& config) {
  return {config.grpc_ssl_certfile, config.grpc_ssl_keyfile, config.grpc_ssl_ca_certs};
}

}  // namespace quire
