// The `odmoe` command: arguments in, exit code out.
#pragma once

#include <string>
#include <vector>

#include "clients/cli/console/console.h"

namespace odmoe {

// Runs one command line, without the program's name, and returns the process's exit code
// (exit_code.h). Every failure is one line on the console's `err`; with --json also an object with
// "error" on its `out`. Never throws.
int RunCli(const std::vector<std::string>& arguments, Console& console);

}  // namespace odmoe
