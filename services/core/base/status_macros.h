// Early return on a failed absl::Status, in the shape Abseil itself adopted in later releases.
//
//   ODMOE_RETURN_IF_ERROR(file->Sync());
//   ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, OpenFile(path));
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ODMOE_CONCAT_INNER_(a, b) a##b
#define ODMOE_CONCAT_(a, b) ODMOE_CONCAT_INNER_(a, b)

#define ODMOE_RETURN_IF_ERROR(expression)                       \
  do {                                                          \
    if (::absl::Status odmoe_status = (expression); !odmoe_status.ok()) { \
      return odmoe_status;                                      \
    }                                                           \
  } while (false)

#define ODMOE_ASSIGN_OR_RETURN_INNER_(result, lhs, expression) \
  auto result = (expression);                                  \
  if (!result.ok()) return std::move(result).status();         \
  lhs = *std::move(result)

#define ODMOE_ASSIGN_OR_RETURN(lhs, expression) \
  ODMOE_ASSIGN_OR_RETURN_INNER_(ODMOE_CONCAT_(odmoe_result_, __LINE__), lhs, expression)
