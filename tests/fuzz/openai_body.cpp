// JSON bodies of the two generation endpoints; the first byte chooses which. Every answer is an
// error in OpenAI's shape: at the latest, that there are no workers.
#include "absl/strings/numbers.h"
#include "common/utf8.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/http_connection.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using quire::fuzz::view;
  if (size == 0) return 0;
  const absl::string_view body = view(data + 1, size - 1).substr(0, 16 << 10);
  const char* path = data[0] % 2 == 0 ? "/v1/completions" : "/v1/chat/completions";
  const std::string answer = quire::fuzz::talk(
      absl::StrCat("POST ", path, " HTTP/1.1\r\nContent-Type: application/json\r\n",
                   "Connection: close\r\nContent-Length: ", body.size(), "\r\n\r\n", body),
      1 << 20);
  int status = 0;
  QUIRE_CHECK_GE(answer.size(), std::size_t{12});
  QUIRE_CHECK(absl::SimpleAtoi(absl::string_view(answer).substr(9, 3), &status));
  QUIRE_CHECK(status == 400 || status == 404 || status == 503);
  const std::size_t head = answer.find("\r\n\r\n");
  QUIRE_CHECK_NE(head, std::string::npos);
  QUIRE_CHECK_EQ(quire::utf8::first_invalid(answer), quire::utf8::npos);
  const auto error = nlohmann::json::parse(answer.substr(head + 4), nullptr, false);
  QUIRE_CHECK(error.is_object() && error.contains("error"));
  QUIRE_CHECK(error["error"].value("message", "") != "");
  return 0;
}
