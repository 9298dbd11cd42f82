// How everything in this folder fails: a thrown Error, which chat_template.cpp turns into a Status.
// Nothing outside this folder sees an exception.
#pragma once

#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire::jinja {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& reason) : std::runtime_error(reason) {}
};

// raise_exception(message) in a template: the message is for the client as it is.
class RaisedByTemplate : public Error {
 public:
  using Error::Error;
};

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(absl::StrCat(parts...));
}

}  // namespace quire::jinja
