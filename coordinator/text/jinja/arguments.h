// Reads the arguments of a built-in function in order, by place or by name, as Python binds them.
#pragma once

#include <cstdint>
#include <string>

#include "coordinator/text/jinja/text_form.h"
#include "coordinator/text/jinja/value.h"

namespace quire::jinja {

class ArgumentReader {
 public:
  ArgumentReader(const char* function, const Arguments& arguments)
      : function_(function), arguments_(arguments) {}
  // Fails for arguments that nobody took.
  void finish() const;

  const Value* take(const char* name);  // nullptr if not given
  const Value& required(const char* name);
  Value take(const char* name, Value missing);
  bool flag(const char* name, bool missing);
  std::int64_t integer(const char* name, std::int64_t missing);  // None counts as missing
  std::string text(const char* name, std::string missing);       // likewise
  std::string required_text(const char* name);
  // The positional arguments that are left.
  std::vector<Value> rest();

 private:
  const char* function_;
  const Arguments& arguments_;
  std::size_t next_ = 0;
  std::size_t named_taken_ = 0;
};

}  // namespace quire::jinja
