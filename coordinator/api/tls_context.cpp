// OpenSSL's settings. read_tls() has checked the files; what can still go wrong here is a key or
// signature that OpenSSL's security level finds too weak.
#include "coordinator/api/tls_context.h"

#include <boost/asio/buffer.hpp>

#include "absl/strings/str_cat.h"

namespace quire {

namespace ssl = boost::asio::ssl;

namespace {

constexpr char kCiphers12[] = "ECDHE+AESGCM:ECDHE+CHACHA20";  // TLS 1.3 has only such
constexpr char kSessionContext[] = "quire";

void set_protocol(SSL_CTX* context) {
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(context, kCiphers12);
  // A client that renegotiates costs us a handshake each time.
  SSL_CTX_set_options(
      context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  // Streams are idle between tokens: 34 KB each are given back meanwhile.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_id_context(context, reinterpret_cast<const unsigned char*>(kSessionContext),
                                 sizeof kSessionContext - 1);
}

ssl::verify_mode verify_mode(ClientCertificates wanted) {
  switch (wanted) {
    case ClientCertificates::kRequired:
      return ssl::verify_peer | ssl::verify_fail_if_no_peer_cert;
    case ClientCertificates::kOptional:
      return ssl::verify_peer;
    default:
      return ssl::verify_none;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ssl::context>> make_tls_context(const HttpTls& tls) {
  if (tls.pem.cert.empty()) return nullptr;
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  set_protocol(context->native_handle());
  boost::system::error_code error;
  const auto refused = [&error](const char* what) {
    return absl::InvalidArgumentError(
        absl::StrCat("TLS cannot use ", what, ": ", error.message(), "."));
  };
  context->use_certificate_chain(boost::asio::buffer(tls.pem.cert), error);
  if (error) return refused("--ssl-certfile");
  context->use_private_key(boost::asio::buffer(tls.pem.key), ssl::context::pem, error);
  if (error) return refused("--ssl-keyfile");
  if (!tls.pem.ca.empty()) {
    context->add_certificate_authority(boost::asio::buffer(tls.pem.ca), error);
    if (error) return refused("--ssl-ca-certs");
  }
  context->set_verify_mode(verify_mode(tls.client_certificates), error);
  if (error) return refused("--ssl-cert-reqs");
  return context;
}

}  // namespace quire
