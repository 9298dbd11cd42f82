// Poll, read, split; see http_client.h.
#include "tests/coordinator/api/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace quire::test {

namespace {

bool wait_for(int fd, short events) {
  pollfd one{fd, events, 0};
  return poll(&one, 1, static_cast<int>(absl::ToInt64Milliseconds(kHttpPatience))) == 1;
}

}  // namespace

HttpClient::HttpClient(int port, int receive_buffer_bytes) {
  fd_ = socket(AF_INET, SOCK_STREAM, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) close();
}

HttpClient::~HttpClient() {
  close();
}

void HttpClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void HttpClient::reset() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void HttpClient::shut_sending() {
  shutdown(fd_, SHUT_WR);
}

bool HttpClient::send(absl::string_view bytes) {
  while (!bytes.empty()) {
    if (fd_ < 0 || !wait_for(fd_, POLLOUT)) return false;
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool HttpClient::fill() {
  char bytes[16 << 10];
  if (fd_ < 0 || !wait_for(fd_, POLLIN)) return false;
  const ssize_t count = recv(fd_, bytes, sizeof bytes, 0);
  if (count <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(count));
  return true;
}

std::optional<std::string> HttpClient::read_line() {
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n")) == std::string::npos) {
    if (!fill()) return std::nullopt;
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

std::optional<std::string> HttpClient::read_bytes(std::size_t count) {
  while (buffer_.size() < count) {
    if (!fill()) return std::nullopt;
  }
  std::string bytes = buffer_.substr(0, count);
  buffer_.erase(0, count);
  return bytes;
}

// Empty: the last chunk.
std::optional<std::string> HttpClient::read_chunk() {
  const auto line = read_line();
  std::size_t size = 0;
  if (!line || !absl::SimpleHexAtoi(*line, &size)) return std::nullopt;
  auto bytes = read_bytes(size);
  if (!bytes || read_line() != "") return std::nullopt;
  return bytes;
}

HttpAnswer HttpClient::read_head() {
  HttpAnswer answer;
  const auto first = read_line();
  if (!first) return answer;
  const std::vector<std::string> parts = absl::StrSplit(*first, absl::MaxSplits(' ', 2));
  int status = 0;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &status)) return answer;
  while (const auto line = read_line()) {
    if (line->empty()) {
      answer.status = status;
      return answer;
    }
    const std::pair<std::string, std::string> field =
        absl::StrSplit(*line, absl::MaxSplits(": ", 1));
    answer.headers[absl::AsciiStrToLower(field.first)] = field.second;
  }
  return answer;
}

HttpAnswer HttpClient::read_answer(bool has_body) {
  HttpAnswer answer = read_head();
  if (answer.status == 0 || !has_body) return answer;
  std::size_t length = 0;
  if (absl::SimpleAtoi(answer.headers["content-length"], &length)) {
    auto body = read_bytes(length);
    if (!body) return {};
    answer.body = *std::move(body);
  } else if (answer.headers["transfer-encoding"] == "chunked") {
    while (true) {
      const auto chunk = read_chunk();
      if (!chunk) return {};
      if (chunk->empty()) break;
      answer.body += *chunk;
    }
  }
  return answer;
}

std::optional<std::string> HttpClient::read_event(std::string* id) {
  auto event = read_block();
  if (!event) return std::nullopt;
  std::string seen_id;
  if (absl::StartsWith(*event, "id: ")) {
    const std::size_t line = event->find('\n');
    seen_id = event->substr(4, line - 4);
    event->erase(0, line + 1);
  }
  if (id != nullptr) *id = seen_id;
  EXPECT_TRUE(absl::StartsWith(*event, "data: ")) << *event;
  return event->substr(6);
}

std::optional<std::string> HttpClient::read_comment() {
  const auto comment = read_block();
  if (!comment) return std::nullopt;
  EXPECT_TRUE(absl::StartsWith(*comment, ": ")) << *comment;
  return comment->substr(2);
}

std::optional<std::string> HttpClient::read_block() {
  std::size_t end = 0;
  while ((end = events_.find("\n\n")) == std::string::npos) {
    const auto chunk = read_chunk();
    if (!chunk || chunk->empty()) return std::nullopt;
    events_ += *chunk;
  }
  std::string block = events_.substr(0, end);
  events_.erase(0, end + 2);
  return block;
}

bool HttpClient::wait_closed() {
  char bytes[16 << 10];
  while (wait_for(fd_, POLLIN)) {
    if (recv(fd_, bytes, sizeof bytes, 0) <= 0) return true;
  }
  return false;
}

std::string get(const std::string& path, const std::string& headers) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\n", headers, "\r\n");
}

std::string post(const std::string& path, const std::string& body, const std::string& headers) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: test\r\nContent-Length: ", body.size(),
                      "\r\n", headers, "\r\n", body);
}

HttpAnswer fetch(int port, const std::string& request) {
  HttpClient client(port);
  client.send(request);
  return client.read_answer(!absl::StartsWith(request, "HEAD "));
}

std::vector<nlohmann::json> read_events(HttpClient& client) {
  std::vector<nlohmann::json> events;
  while (const auto event = client.read_event()) {
    if (*event == "[DONE]") {
      EXPECT_FALSE(client.read_event().has_value()) << "an event after [DONE]";
      return events;
    }
    events.push_back(nlohmann::json::parse(*event, nullptr, false));
    EXPECT_FALSE(events.back().is_discarded()) << *event;
  }
  ADD_FAILURE() << "the stream ended without [DONE]";
  return events;
}

}  // namespace quire::test
