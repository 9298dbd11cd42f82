// A small HTTP client on a raw socket: sends any bytes, reads answers and events piece by piece.
// Every wait ends after kHttpPatience, as a failure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace quire::test {

inline constexpr absl::Duration kHttpPatience = absl::Seconds(30);

struct HttpAnswer {
  int status = 0;                              // 0: no answer (closed, or out of patience)
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
};

class HttpClient {
 public:
  explicit HttpClient(int port, int receive_buffer_bytes = 0);  // 0: the system's
  ~HttpClient();
  HttpClient(HttpClient&& other) noexcept : fd_(other.fd_), buffer_(std::move(other.buffer_)) {
    other.fd_ = -1;
  }
  HttpClient& operator=(HttpClient&&) = delete;

  bool connected() const { return fd_ >= 0; }
  bool send(absl::string_view bytes);  // all of it; false when the other side has closed
  void close();
  void reset();  // close with RST instead of FIN
  void shut_sending();

  HttpAnswer read_answer(bool has_body = true);
  // For event streams: the header, then one event's data at a time; nothing at the end.
  HttpAnswer read_head();
  std::optional<std::string> read_event(std::string* id = nullptr);  // `id`: its id, or empty
  std::optional<std::string> read_comment();                         // what comes next must be one
  bool wait_closed();  // the server has closed; what still arrives is thrown away

 private:
  bool fill();  // reads more into buffer_
  std::optional<std::string> read_line();
  std::optional<std::string> read_bytes(std::size_t count);
  std::optional<std::string> read_chunk();
  std::optional<std::string> read_block();  // up to the empty line

  int fd_ = -1;
  std::string buffer_;
  std::string events_;  // body bytes of chunks, not yet split
};

// Requests as text.
std::string get(const std::string& path, const std::string& headers = "");
std::string post(const std::string& path, const std::string& body,
                 const std::string& headers = "Content-Type: application/json\r\n");

// One request on a connection of its own.
HttpAnswer fetch(int port, const std::string& request);

// A whole event stream: its events' data in order, without [DONE], which must be the last.
std::vector<nlohmann::json> read_events(HttpClient& client);

}  // namespace quire::test
