// Early-return macros over absl::Status. Messages are whole sentences that say what to do.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define QUIRE_CONCAT_INNER_(a, b) a##b
#define QUIRE_CONCAT_(a, b) QUIRE_CONCAT_INNER_(a, b)

#define QUIRE_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                               \
    if (absl::Status quire_status = (expr); !quire_status.ok()) return quire_status; \
  } while (false)

#define QUIRE_ASSIGN_OR_RETURN(lhs, expr) \
  QUIRE_ASSIGN_OR_RETURN_IMPL_(QUIRE_CONCAT_(quire_statusor_, __LINE__), lhs, expr)

#define QUIRE_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = *std::move(tmp)
