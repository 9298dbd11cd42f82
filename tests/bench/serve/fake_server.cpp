#include "tests/bench/serve/fake_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "common/check.h"

namespace quire::bench {
namespace {

constexpr int kLookMs = 20;             // how often a wait looks whether the server stops
constexpr int kMeetingWithinMs = 5000;  // for requests that should come together

bool send_all_of(int socket, const std::string& text) {
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t n = send(socket, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

std::string with_length(const std::string& status, const std::string& body) {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nConnection: close\r\n\r\n" + body;
}

// One server-sent event in one HTTP chunk.
std::string event(const std::string& data) {
  const std::string text = "data: " + data + "\n\n";
  char size[16];
  std::snprintf(size, sizeof(size), "%zx\r\n", text.size());
  return size + text + "\r\n";
}

std::string header_of(const std::string& head, const std::string& name) {
  const std::size_t at = head.find(name + ": ");
  if (at == std::string::npos) return "";
  const std::size_t begin = at + name.size() + 2;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

}  // namespace

FakeServer::FakeServer(Manners manners) : manners_(manners) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  QUIRE_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
  QUIRE_CHECK(listen(listener_, 128) == 0);
  QUIRE_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_all(); });
}

FakeServer::~FakeServer() {
  stopping_ = true;
  acceptor_.join();
  for (std::thread& thread : threads_) thread.join();
  close(listener_);
}

std::string FakeServer::url() const {
  return "http://127.0.0.1:" + std::to_string(port_);
}

std::vector<nlohmann::json> FakeServer::bodies() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bodies_;
}

std::vector<std::string> FakeServer::targets() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return targets_;
}

std::vector<std::string> FakeServer::authorizations() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return authorizations_;
}

void FakeServer::accept_all() {
  while (!stopping_) {
    pollfd ready = {listener_, POLLIN, 0};
    if (poll(&ready, 1, kLookMs) != 1) continue;
    const int socket = accept(listener_, nullptr, nullptr);
    if (socket >= 0) threads_.emplace_back([this, socket] { serve(socket); });
  }
}

void FakeServer::serve(int socket) {
  std::string text;
  std::size_t need = std::string::npos, head_end = 0;
  char buffer[4096];
  while (!stopping_ && text.size() < need) {
    pollfd ready = {socket, POLLIN, 0};
    if (poll(&ready, 1, kLookMs) != 1) continue;
    const ssize_t n = recv(socket, buffer, sizeof(buffer), 0);
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
    if (head_end = text.find("\r\n\r\n"); head_end != std::string::npos) {
      need = head_end + 4 + std::strtoul(header_of(text, "Content-Length").c_str(), nullptr, 10);
    }
  }
  if (text.rfind("GET /v1/models ", 0) == 0) {
    send_all_of(socket, with_length("200 OK", R"({"data": [{"id": "fake"}, {"id": "other"}]})"));
  } else if (text.rfind("POST ", 0) == 0 && text.size() >= need) {
    const nlohmann::json body = nlohmann::json::parse(text.substr(head_end + 4), nullptr, false);
    const std::string target = text.substr(5, text.find(' ', 5) - 5);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      bodies_.push_back(body);
      targets_.push_back(target);
      authorizations_.push_back(header_of(text, "Authorization"));
    }
    const int now = ++running_;
    for (int most = most_; now > most && !most_.compare_exchange_weak(most, now);) {
    }
    const std::string last = ++came_ > manners_.refuse_beyond
                                 ? with_length("503 Service Unavailable", "full")
                                 : answer(socket, body, target == "/v1/chat/completions");
    --running_;  // before the client can know, or its next request would seem to come too early
    send_all_of(socket, last);
  }
  close(socket);
}

std::string FakeServer::answer(int socket, const nlohmann::json& body, bool chat) {
  for (int waited = 0; came_ < manners_.meet_before_answer && waited < kMeetingWithinMs; ++waited) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  while (manners_.silent && !stopping_) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kLookMs));
  }
  if (manners_.silent) return "";
  const int wanted = body.value(chat ? "max_completion_tokens" : "max_tokens", 1);
  const std::string chunk =
      chat ? R"({"choices": [{"delta": {"content": "x"}}]})" : R"({"choices": [{"text": "x"}]})";
  std::string head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
  if (!send_all_of(socket, head + "Transfer-Encoding: chunked\r\n\r\n")) return "";
  for (int sent = 0; sent < wanted || manners_.endless; sent += manners_.tokens_a_chunk) {
    if (stopping_ || !send_all_of(socket, event(chunk))) return "";
    ++chunks_;
    if (manners_.break_off) return "";
    if (manners_.endless) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (manners_.usage) {
    const nlohmann::json usage = {{"choices", nlohmann::json::array()},
                                  {"usage", {{"completion_tokens", wanted}}}};
    if (!send_all_of(socket, event(usage.dump()))) return "";
  }
  return event("[DONE]") + "0\r\n\r\n";
}

}  // namespace quire::bench
