// Python's operators over values, as far as templates use them.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/text/jinja/value.h"

namespace quire::jinja {

// + - * / // % **. Fails for types that do not go together and for results out of 64 bits.
Value arithmetic(Budget& budget, absl::string_view op, const Value& a, const Value& b);
Value negative(const Value& value);

bool equal(Budget& budget, const Value& a, const Value& b);
// Negative, zero, positive. Fails for types without an order between them.
int order(Budget& budget, const Value& a, const Value& b);
// == != < <= > >= in, not in.
bool compare(Budget& budget, absl::string_view op, const Value& a, const Value& b);
bool contains(Budget& budget, const Value& container, const Value& item);

// value[key]; undefined where there is no such item.
Value get_item(Budget& budget, const Value& value, const Value& key);
// value[begin:end:step]; absent ends are undefined or none.
Value get_slice(Budget& budget, const Value& value, const Value& begin, const Value& end,
                const Value& step);

}  // namespace quire::jinja
