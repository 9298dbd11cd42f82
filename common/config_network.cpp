// Who listens where, and who is let in. HTTP is for the open network once it has TLS and keys. gRPC
// is not: this release of it lacks fixes for what strangers can do before any of our code runs
// (SECURITY.md), so its port is on loopback, behind mutual TLS, or on a network that the operator
// calls private.
#include <arpa/inet.h>

#include "absl/strings/str_cat.h"
#include "common/config_file.h"
#include "common/status.h"

namespace quire {
namespace {

template <typename... Reason>
absl::Status refuse(const Reason&... reason) {
  return absl::InvalidArgumentError(absl::StrCat(reason...));
}

absl::Status check_http(const EngineConfig& config) {
  if (config.ssl_certfile.empty() != config.ssl_keyfile.empty()) {
    return refuse("--ssl-certfile and --ssl-keyfile go together; ",
                  config.ssl_certfile.empty() ? "--ssl-certfile" : "--ssl-keyfile", " is missing.");
  }
  if (config.ssl_cert_reqs != 0 && config.ssl_certfile.empty()) {
    return refuse("--ssl-cert-reqs is ", config.ssl_cert_reqs,
                  ", but client certificates need HTTPS; give --ssl-certfile and --ssl-keyfile.");
  }
  if ((config.ssl_cert_reqs != 0) != !config.ssl_ca_certs.empty()) {
    return refuse("--ssl-cert-reqs is ", config.ssl_cert_reqs, " and --ssl-ca-certs is ",
                  config.ssl_ca_certs.empty() ? "not given" : config.ssl_ca_certs,
                  "; to check client certificates give both: the authorities, and 1 (optional) or "
                  "2 (required).");
  }
  return absl::OkStatus();
}

absl::Status check_grpc(const EngineConfig& config) {
  const int given = !config.grpc_ssl_certfile.empty() + !config.grpc_ssl_keyfile.empty() +
                    !config.grpc_ssl_ca_certs.empty();
  if (given != 0 && given != 3) {
    return refuse(
        "gRPC has mutual TLS or none: give all of --grpc-ssl-certfile, --grpc-ssl-keyfile and "
        "--grpc-ssl-ca-certs.");
  }
  if (!config.grpc_ssl_server_name.empty() && given == 0) {
    return refuse("--grpc-ssl-server-name is ", config.grpc_ssl_server_name,
                  ", but there is no TLS on the gRPC port; give the three --grpc-ssl files too.");
  }
  if (given == 3 || is_loopback(config.grpc_host)) return absl::OkStatus();
  if (!config.grpc_insecure_private_network) {
    return refuse("--grpc-host is ", config.grpc_host,
                  ", which other machines reach, and gRPC listens there without TLS. Give "
                  "--grpc-ssl-certfile, --grpc-ssl-keyfile and --grpc-ssl-ca-certs; or, on a "
                  "network where nobody else is, --grpc-insecure-private-network and "
                  "--worker-secret-file. (--host is of HTTP alone.)");
  }
  if (config.worker_secret_file.empty()) {
    return refuse(
        "--grpc-insecure-private-network needs --worker-secret-file: else whoever "
        "reaches --grpc-host ",
        config.grpc_host, " could join as a worker and read every prompt.");
  }
  return absl::OkStatus();
}

}  // namespace

bool is_loopback(const std::string& host) {
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  return host == "localhost";
}

absl::Status check_network(const EngineConfig& config) {
  if (config.port != 0 && config.port == config.grpc_port) {
    return refuse("--port and --grpc-port are both ", config.port, "; they must differ.");
  }
  QUIRE_RETURN_IF_ERROR(check_http(config));
  QUIRE_RETURN_IF_ERROR(check_grpc(config));
  if (!config.tenants_file.empty() && !config.api_key.empty()) {
    return refuse(
        "--tenants and --api-key (or --api-key-file, or QUIRE_API_KEY) are both given; the keys of "
        "--tenants are the "
        "ones that are asked for: make the other one a tenant in ",
        config.tenants_file, ", or leave it out.");
  }
  return absl::OkStatus();
}

}  // namespace quire
