#include "converter/huggingface/name_rules.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr absl::string_view kHole = "{}";

}  // namespace

std::optional<std::vector<int32_t>> MatchName(absl::string_view pattern, absl::string_view name) {
  std::vector<int32_t> numbers;
  for (;;) {
    const size_t hole = pattern.find(kHole);
    const absl::string_view literal = pattern.substr(0, hole);
    if (!absl::StartsWith(name, literal)) return std::nullopt;
    name.remove_prefix(literal.size());
    if (hole == absl::string_view::npos) break;
    pattern.remove_prefix(hole + kHole.size());
    const absl::string_view digits = name.substr(0, name.find_first_not_of("0123456789"));
    int32_t number = 0;
    if (!absl::SimpleAtoi(digits, &number)) return std::nullopt;
    name.remove_prefix(digits.size());
    numbers.push_back(number);
  }
  if (!name.empty()) return std::nullopt;
  return numbers;
}

std::string FillName(absl::string_view pattern, const std::vector<int32_t>& numbers) {
  std::string name;
  for (int32_t number : numbers) {
    const size_t hole = pattern.find(kHole);
    if (hole == absl::string_view::npos) break;
    absl::StrAppend(&name, pattern.substr(0, hole), number);
    pattern.remove_prefix(hole + kHole.size());
  }
  absl::StrAppend(&name, pattern);
  return name;
}

}  // namespace odmoe
