// CHECK macros for what only we can cause: they print the condition and both values, then abort.
// What a user or a network can cause is an absl::Status (see status.h), never a CHECK.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace quire::internal {

[[noreturn]] inline void check_failed(const char* file, int line, const char* what,
                                      const std::string& values) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s%s\n", file, line, what, values.c_str());
  std::abort();
}

template <typename A, typename B>
std::string both_values(const A& a, const B& b) {
  std::ostringstream out;
  out << " (" << a << " vs " << b << ")";
  return out.str();
}

}  // namespace quire::internal

#define QUIRE_CHECK(cond)                                                        \
  do {                                                                           \
    if (!(cond)) ::quire::internal::check_failed(__FILE__, __LINE__, #cond, ""); \
  } while (false)

#define QUIRE_CHECK_OP_(a, b, op)                                        \
  do {                                                                   \
    const auto& quire_check_a = (a);                                     \
    const auto& quire_check_b = (b);                                     \
    if (!(quire_check_a op quire_check_b)) {                             \
      ::quire::internal::check_failed(                                   \
          __FILE__, __LINE__, #a " " #op " " #b,                         \
          ::quire::internal::both_values(quire_check_a, quire_check_b)); \
    }                                                                    \
  } while (false)

#define QUIRE_CHECK_EQ(a, b) QUIRE_CHECK_OP_(a, b, ==)
#define QUIRE_CHECK_NE(a, b) QUIRE_CHECK_OP_(a, b, !=)
#define QUIRE_CHECK_LE(a, b) QUIRE_CHECK_OP_(a, b, <=)
#define QUIRE_CHECK_LT(a, b) QUIRE_CHECK_OP_(a, b, <)
#define QUIRE_CHECK_GE(a, b) QUIRE_CHECK_OP_(a, b, >=)
#define QUIRE_CHECK_GT(a, b) QUIRE_CHECK_OP_(a, b, >)
