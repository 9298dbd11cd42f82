// Calls the function of a shared library behind one of the same name in this program.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>

#include "common/check.h"

namespace quire::sanitizers {

template <std::size_t kSize>
struct Name {
  char text[kSize];
  consteval Name(const char (&from)[kSize]) { std::copy(from, from + kSize, text); }
};

// `kName` is the mangled one; Result and Arguments are those of the function.
template <Name kName, typename Result, typename... Arguments>
Result call_library(Arguments... arguments) {
  static void* const found = [] {
    void* symbol = dlsym(RTLD_NEXT, kName.text);
    QUIRE_CHECK(symbol != nullptr);
    return symbol;
  }();
  return reinterpret_cast<Result (*)(Arguments...)>(found)(arguments...);
}

}  // namespace quire::sanitizers
