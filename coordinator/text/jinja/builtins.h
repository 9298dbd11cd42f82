// What templates can call: filters, tests, methods of values, global functions. Each kind is an
// explicit table in its own file; a new one is a function and a row.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/text/jinja/value.h"

namespace quire::jinja {

// `subject` is what stands before the bar, or the object of a method.
using Function = Value (*)(Interpreter&, const Value& subject, const Arguments&);

Function find_filter(absl::string_view name);  // nullptr if there is none
Function find_test(absl::string_view name);    // gives true or false

// A method of the value's type. Fails for those that would change it.
Function find_method(const Value& value, absl::string_view name);

struct Global {
  const char* name;
  Value (*run)(Interpreter&, const Arguments&);
};
// range, dict, namespace, raise_exception, strftime_now.
const std::vector<Global>& globals();

}  // namespace quire::jinja
