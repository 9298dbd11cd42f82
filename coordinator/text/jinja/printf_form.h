// Python's two ways to fill values into a text: "..." % values and "...".format(...).
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/text/jinja/value.h"

namespace quire::jinja {

// %s %r %d %i %u %x %X %o %f %F %e %E %g %G %c %%, with flags, width, precision and %(name).
std::string printf_text(Budget& budget, absl::string_view format, const Value& values);

// {} {0} {name}, with !s !r and [[fill]align][sign][0][width][,][.precision][type].
std::string format_text(Budget& budget, absl::string_view format, const Arguments& arguments);

// One value by the part of a replacement field after the colon.
std::string format_value(Budget& budget, const Value& value, absl::string_view spec);

}  // namespace quire::jinja
