// What HTTPS needs, without Asio: the files' text, and whether clients show certificates.
#pragma once

#include "common/tls.h"

namespace quire {

enum class ClientCertificates { kNone = 0, kOptional = 1, kRequired = 2 };

struct HttpTls {
  TlsPem pem;  // no certificate: plain HTTP
  ClientCertificates client_certificates = ClientCertificates::kNone;
};

}  // namespace quire
