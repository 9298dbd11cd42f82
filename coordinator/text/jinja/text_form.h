// Values as text, as Python writes them: str(), repr(), json.dumps().
#pragma once

#include <string>

#include "coordinator/text/jinja/value.h"

namespace quire::jinja {

std::string to_text(Budget& budget, const Value& value);
std::string to_repr(Budget& budget, const Value& value);
std::string float_text(double number);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;
  std::string indent;  // of one level, when pretty
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// Fails for what JSON has no form for (undefined, generators, functions).
std::string to_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace quire::jinja
