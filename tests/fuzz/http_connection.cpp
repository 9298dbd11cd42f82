#include "tests/fuzz/http_connection.h"

#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <utility>

#include "coordinator/api/routes.h"
#include "coordinator/api/session.h"
#include "tests/coordinator/api/letter_tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

constexpr int kContext = 256;
constexpr std::size_t kMaxBytes = 64 << 10;  // a socket takes them without a reader
constexpr std::chrono::seconds kPatience(8);
constexpr char kTemplate[] =
    "{% for m in messages %}{{ m.role + ': ' + m.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}Q{% endif %}";

// What the routes need, made once.
class Service {
 public:
  Service() : model_(test::letter_model(kContext)) {
    config_.max_model_len = kContext;
    auto chat_template = ChatTemplate::parse(kTemplate);
    QUIRE_CHECK(chat_template.ok());
    model_.text.chat_template = *std::move(chat_template);
    engine_ = std::make_unique<Engine>(config_, model_.spec);
    handler_ = make_routes({&config_, &model_, engine_.get(), nullptr});
  }
  const HttpHandler& handler() const { return handler_; }

 private:
  EngineConfig config_;
  ServedModel model_;
  std::unique_ptr<Engine> engine_;
  HttpHandler handler_;
};

std::string read_all(int fd) {
  std::string out(kMaxBytes, '\0');
  std::size_t size = 0;
  ssize_t got = 0;
  while ((got = recv(fd, out.data() + size, out.size() - size, MSG_DONTWAIT)) > 0) {
    size += static_cast<std::size_t>(got);
    if (size == out.size()) out.resize(2 * size);
  }
  out.resize(size);
  return out;
}

}  // namespace

std::string talk(absl::string_view bytes, std::size_t part) {
  static const Service service;
  static const HttpLimits limits = {.header_bytes = 4 << 10, .body_bytes = 32 << 10};
  bytes = bytes.substr(0, kMaxBytes);
  int ends[2];
  QUIRE_CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  boost::asio::io_context context(1);
  int closed = 0;
  {
    SocketStream::Tcp::socket socket(context);
    socket.assign(SocketStream::Tcp::v4(), ends[0]);
    auto session = std::make_shared<Session>(std::move(socket), nullptr, limits, service.handler(),
                                             [&closed](Session*) { ++closed; });
    session->start();
  }
  std::string answer;
  for (std::size_t at = 0; at < bytes.size(); at += part) {
    const absl::string_view next = bytes.substr(at, part);
    if (send(ends[1], next.data(), next.size(), MSG_NOSIGNAL) < 0) break;  // it has closed already
    context.poll();
    answer += read_all(ends[1]);
  }
  shutdown(ends[1], SHUT_WR);
  context.restart();
  context.run_for(kPatience);
  answer += read_all(ends[1]);
  close(ends[1]);
  QUIRE_CHECK_EQ(closed, 1);
  QUIRE_CHECK(answer.empty() || answer.rfind("HTTP/1.1 ", 0) == 0);
  return answer;
}

}  // namespace quire::fuzz
