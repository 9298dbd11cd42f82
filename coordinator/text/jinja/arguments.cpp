// Binding of arguments; see arguments.h.
#include "coordinator/text/jinja/arguments.h"

namespace quire::jinja {

void ArgumentReader::finish() const {
  if (next_ < arguments_.positional.size()) {
    fail(function_, "() takes at most ", next_, " arguments, ", arguments_.positional.size(),
         " were given");
  }
  if (named_taken_ < arguments_.named.size()) {
    fail(function_, "() got an argument it does not know among: ", arguments_.named[0].first,
         arguments_.named.size() > 1 ? ", ..." : "");
  }
}

const Value* ArgumentReader::take(const char* name) {
  if (next_ < arguments_.positional.size()) return &arguments_.positional[next_++];
  for (const auto& [given, value] : arguments_.named) {
    if (given != name) continue;
    ++named_taken_;
    return &value;
  }
  return nullptr;
}

const Value& ArgumentReader::required(const char* name) {
  const Value* value = take(name);
  if (value == nullptr) fail(function_, "() needs the argument '", name, "'");
  return *value;
}

Value ArgumentReader::take(const char* name, Value missing) {
  const Value* value = take(name);
  return value != nullptr ? *value : std::move(missing);
}

bool ArgumentReader::flag(const char* name, bool missing) {
  const Value* value = take(name);
  return value != nullptr ? value->truthy() : missing;
}

std::int64_t ArgumentReader::integer(const char* name, std::int64_t missing) {
  const Value* value = take(name);
  if (value == nullptr || value->is_none()) return missing;
  if (!value->is_integral()) {
    fail(function_, "() wants an integer for '", name, "', not ", value->type_name());
  }
  return value->as_integer();
}

std::string ArgumentReader::text(const char* name, std::string missing) {
  const Value* value = take(name);
  if (value == nullptr || value->is_none()) return missing;
  if (!value->is_string()) {
    fail(function_, "() wants a text for '", name, "', not ", value->type_name());
  }
  return value->string();
}

std::string ArgumentReader::required_text(const char* name) {
  const Value& value = required(name);
  if (value.is_undefined()) fail(value.undefined_reason());
  if (!value.is_string()) {
    fail(function_, "() wants a text for '", name, "', not ", value.type_name());
  }
  return value.string();
}

std::vector<Value> ArgumentReader::rest() {
  std::vector<Value> values(arguments_.positional.begin() + static_cast<std::ptrdiff_t>(next_),
                            arguments_.positional.end());
  next_ = arguments_.positional.size();
  return values;
}

}  // namespace quire::jinja
