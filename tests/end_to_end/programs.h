// The programs as a user runs them, on the model that ships with the tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "tests/support/subprocess.h"

namespace odmoe {

// How long anything may take before a test gives up: sanitized builds on a busy machine are slow.
inline constexpr absl::Duration kPatience = absl::Seconds(100);

// Runs `odmoe` with these arguments to its end, ODMOE_ENDPOINT unset.
ProcessOutput Odmoe(const std::vector<std::string>& arguments, const std::string& input = "");
// The same, for a run that must succeed and write one JSON document; null where it does not.
nlohmann::json OdmoeJson(const std::vector<std::string>& arguments);
// Starts `odmoe`.
std::unique_ptr<Subprocess> StartOdmoe(const std::vector<std::string>& arguments);

// A service, started and listening; killed at the end.
struct Service {
  std::unique_ptr<Subprocess> process;
  std::string endpoint;
};
// Starts a program of the bin folder, and reads where it listens.
Service StartService(const std::string& program, const std::vector<std::string>& arguments);

// tests/data/tiny-kimi, converted by `odmoe convert --outtype f32` to a model directory. Made by
// the first test that asks for it, and again after the program has changed; shared by all test
// processes, so read-only.
std::string TinyKimi();

// The checkpoint itself.
std::string TinyKimiCheckpoint();

// tests/data/tiny-kimi-reference/<name>.json.
nlohmann::json Reference(const std::string& name);

}  // namespace odmoe
