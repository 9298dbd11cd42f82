// The filters, in three groups; builtins.cpp joins them into one look-up.
#pragma once

#include "absl/types/span.h"
#include "coordinator/text/jinja/builtins.h"

namespace quire::jinja {

struct NamedFunction {
  const char* name;
  Function run;
};

absl::Span<const NamedFunction> text_filters();
absl::Span<const NamedFunction> value_filters();
absl::Span<const NamedFunction> list_filters();
absl::Span<const NamedFunction> tests();

}  // namespace quire::jinja
