#include "clients/cli/help_format.h"

#include <algorithm>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace odmoe {
namespace {

constexpr size_t kHelpColumns = 80;

}  // namespace

std::string WrapWords(absl::string_view text, size_t columns) {
  std::string wrapped;
  size_t used = 0;
  for (const absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    if (used > 0 && used + 1 + word.size() > columns) {
      wrapped += '\n';
      used = 0;
    }
    absl::StrAppend(&wrapped, used > 0 ? " " : "", word);
    used += word.size() + (used > 0 ? 1 : 0);
  }
  return wrapped;
}

std::string HelpFormat::make_option_desc(const CLI::Option* option) const {
  return WrapWords(option->get_description(), TextColumns());
}

std::string HelpFormat::make_subcommand(const CLI::App* command) const {
  std::ostringstream out;
  CLI::detail::format_help(out, command->get_display_name(true),
                           WrapWords(command->get_description(), TextColumns()), column_width_);
  return out.str();
}

size_t HelpFormat::TextColumns() const {
  return kHelpColumns - std::min(column_width_, kHelpColumns / 2);
}

}  // namespace odmoe
