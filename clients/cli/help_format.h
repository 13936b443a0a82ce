// Help as it fits a terminal of 80 columns.
#pragma once

#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/string_view.h"

namespace odmoe {

// `text` with its words on lines of at most `columns` characters, as far as words allow; its own
// line breaks count as spaces.
std::string WrapWords(absl::string_view text, size_t columns);

// CLI11's own, but for descriptions that would run past the right edge.
class HelpFormat : public CLI::Formatter {
 public:
  std::string make_option_desc(const CLI::Option* option) const override;
  std::string make_subcommand(const CLI::App* command) const override;

 private:
  size_t TextColumns() const;
};

}  // namespace odmoe
