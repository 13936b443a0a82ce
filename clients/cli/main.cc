#include <string>
#include <vector>

#include "clients/cli/cli.h"
#include "clients/cli/console/console.h"

int main(int argc, char** argv) {
  odmoe::Console console = odmoe::Console::Standard();
  return odmoe::RunCli(std::vector<std::string>(argv + 1, argv + argc), console);
}
