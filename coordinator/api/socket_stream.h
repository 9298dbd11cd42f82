// The bytes of one connection, in the clear or through TLS; who reads and writes need not know
// which. One read and one write may be in flight at a time, and everything happens on the socket's
// strand.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <utility>

namespace quire {

class SocketStream {
 public:
  using Tcp = boost::asio::ip::tcp;
  using ErrorCode = boost::system::error_code;

  // `tls`: null, or what outlives the stream.
  SocketStream(Tcp::socket socket, boost::asio::ssl::context* tls) : socket_(std::move(socket)) {
    if (tls != nullptr) tls_ = std::make_unique<Tls>(socket_, *tls);
    reads_tls_ = tls_ != nullptr;
  }
  SocketStream(const SocketStream&) = delete;  // it stays where it is: tls_ refers to socket_
  SocketStream& operator=(const SocketStream&) = delete;

  Tcp::socket::executor_type get_executor() { return socket_.get_executor(); }
  bool is_tls() const { return tls_ != nullptr; }
  void set_no_delay() {
    ErrorCode ignored;
    socket_.set_option(Tcp::no_delay(true), ignored);
  }

  // Only where is_tls(), before anything is read or written: handler(error).
  template <typename Handler>
  void async_handshake(Handler handler) {
    tls_->async_handshake(boost::asio::ssl::stream_base::server, std::move(handler));
  }
  // handler(error, num_bytes)
  template <typename Buffer, typename Handler>
  void async_read_some(Buffer buffer, Handler handler) {
    if (reads_tls_) return tls_->async_read_some(buffer, std::move(handler));
    socket_.async_read_some(buffer, std::move(handler));
  }
  // All of `buffer`.
  template <typename Buffer, typename Handler>
  void async_write(Buffer buffer, Handler handler) {
    if (tls_) {
      boost::asio::async_write(*tls_, buffer, std::move(handler));
    } else {
      boost::asio::async_write(socket_, buffer, std::move(handler));
    }
  }
  // Tells the other side that nothing more comes; it may still send. With TLS: handler(error) when
  // it has said the same, sent something else, or gone; without: never.
  template <typename Handler>
  void finish_sending(Handler handler) {
    if (tls_) return tls_->async_shutdown(std::move(handler));
    ErrorCode ignored;
    socket_.shutdown(Tcp::socket::shutdown_send, ignored);
  }
  // Once sending is finished TLS takes no more data either, but what is on its way must be read all
  // the same, or a reset overtakes our last bytes: from now on reads are of the bare socket. False:
  // they were already.
  bool leave_tls() { return std::exchange(reads_tls_, false); }
  void close() {
    ErrorCode ignored;
    socket_.close(ignored);
  }

 private:
  using Tls = boost::asio::ssl::stream<Tcp::socket&>;
  Tcp::socket socket_;
  std::unique_ptr<Tls> tls_;  // reads and writes through socket_
  bool reads_tls_ = false;
};

}  // namespace quire
