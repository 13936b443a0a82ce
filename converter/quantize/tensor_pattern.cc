#include "converter/quantize/tensor_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr size_t kMaxExpressionBytes = 1024;
// Names have 63 bytes at most: whatever needs more is exponential.
constexpr uint32_t kMaxSteps = 100'000;

template <auto kFree>
struct FreedBy {
  template <typename T>
  void operator()(T* value) const {
    kFree(value);
  }
};

PCRE2_SPTR Units(absl::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct TensorPattern::Compiled {
  std::string expression;
  std::unique_ptr<pcre2_code, FreedBy<pcre2_code_free>> code;
};

absl::StatusOr<TensorPattern> TensorPattern::Compile(absl::string_view expression) {
  if (expression.size() > kMaxExpressionBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a regular expression of ", expression.size(),
                                                   " bytes, at most ", kMaxExpressionBytes,
                                                   " are allowed"));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Compiled>();
  compiled->expression = std::string(expression);
  compiled->code.reset(pcre2_compile(Units(expression), expression.size(),
                                     PCRE2_CASELESS | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                     nullptr));
  if (compiled->code == nullptr) {
    char message[256];
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrCat("'", expression, "' is not a regular expression: at ", offset, ": ", message));
  }
  return TensorPattern(std::move(compiled));
}

absl::StatusOr<bool> TensorPattern::IsIn(absl::string_view name) const {
  const std::unique_ptr<pcre2_match_context, FreedBy<pcre2_match_context_free>> context(
      pcre2_match_context_create(nullptr));
  const std::unique_ptr<pcre2_match_data, FreedBy<pcre2_match_data_free>> data(
      pcre2_match_data_create(1, nullptr));
  pcre2_set_match_limit(context.get(), kMaxSteps);
  const int count =
      pcre2_match(compiled_->code.get(), Units(name), name.size(), 0, 0, data.get(), context.get());
  if (count >= 0) return true;
  if (count == PCRE2_ERROR_NOMATCH) return false;
  return absl::InvalidArgumentError(absl::StrCat("the regular expression '", compiled_->expression,
                                                 "' takes too long on '", name, "'"));
}

}  // namespace odmoe
