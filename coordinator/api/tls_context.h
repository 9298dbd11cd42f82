// From PEM text to the TLS settings that all connections of the HTTP server share.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <utility>  // Asio 1.74 with g++ 12 needs std::exchange before it is included

#include "absl/status/statusor.h"
#include "coordinator/api/http_tls.h"

namespace quire {

// Null for plain HTTP. TLS 1.2 with forward secrecy and authenticated ciphers, or TLS 1.3.
absl::StatusOr<std::unique_ptr<boost::asio::ssl::context>> make_tls_context(const HttpTls& tls);

}  // namespace quire
