#include "tests/end_to_end/programs.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

std::string ProgramPath(const std::string& name) { return absl::StrCat(ODMOE_BIN_DIR, "/", name); }

Subprocess::Options OdmoeOptions(const std::vector<std::string>& arguments) {
  Subprocess::Options options;
  options.arguments = {ProgramPath("odmoe")};
  options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
  options.environment = {{"ODMOE_ENDPOINT", ""}};
  return options;
}

// Held while a test process makes the shared model, and dropped by the kernel however it ends.
class FileLock {
 public:
  explicit FileLock(const std::string& path) : fd_(open(path.c_str(), O_CREAT | O_RDWR, 0600)) {
    flock(fd_, LOCK_EX);
  }
  ~FileLock() { close(fd_); }

 private:
  const int fd_;
};

}  // namespace

ProcessOutput Odmoe(const std::vector<std::string>& arguments, const std::string& input) {
  Subprocess::Options options = OdmoeOptions(arguments);
  options.input = input;
  auto output = Subprocess::Run(options, kPatience);
  EXPECT_TRUE(output.ok()) << output.status();
  if (!output.ok()) return ProcessOutput{{.code = -1}, "", ""};
  EXPECT_EQ(output->exit.signal, 0) << output->err;
  return *std::move(output);
}

nlohmann::json OdmoeJson(const std::vector<std::string>& arguments) {
  const ProcessOutput output = Odmoe(arguments);
  EXPECT_EQ(output.exit.code, 0) << output.out << output.err;
  nlohmann::json json = nlohmann::json::parse(output.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(json.is_discarded()) << output.out;
  return json.is_discarded() ? nlohmann::json() : json;
}

std::unique_ptr<Subprocess> StartOdmoe(const std::vector<std::string>& arguments) {
  auto process = Subprocess::Start(OdmoeOptions(arguments));
  EXPECT_TRUE(process.ok()) << process.status();
  return process.ok() ? *std::move(process) : nullptr;
}

Service StartService(const std::string& program, const std::vector<std::string>& arguments) {
  const std::string announcement = "listening on ";
  Subprocess::Options options;
  options.arguments = {ProgramPath(program)};
  options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
  auto process = Subprocess::Start(options);
  EXPECT_TRUE(process.ok()) << process.status();
  if (!process.ok()) return {};
  const auto line = (*process)->WaitForLine(announcement, kPatience);
  EXPECT_TRUE(line.ok()) << line.status();
  if (!line.ok()) return {};
  return {*std::move(process), line->substr(line->find(announcement) + announcement.size())};
}

std::string TinyKimiCheckpoint() { return absl::StrCat(ODMOE_TEST_DATA, "/tiny-kimi"); }

std::string TinyKimi() {
  const fs::path program = ProgramPath("odmoe");
  std::error_code error;
  const auto changed = fs::last_write_time(program, error).time_since_epoch().count();
  const fs::path all = fs::path(ODMOE_BIN_DIR) / ".." / "tests" / "end_to_end_models";
  const fs::path model = all / absl::StrCat(changed) / "tiny-kimi";
  fs::create_directories(all, error);
  const FileLock lock((all / "lock").string());
  if (fs::exists(model / "experts" / "registry.json", error)) return model.string();
  for (const auto& entry : fs::directory_iterator(all)) {
    if (entry.is_directory()) fs::remove_all(entry.path(), error);
  }
  fs::create_directories(model.parent_path(), error);
  const ProcessOutput output = Odmoe(
      {"convert", TinyKimiCheckpoint(), "-o", model.string(), "--outtype", "f32", "--quiet"});
  EXPECT_EQ(output.exit.code, 0) << output.err;
  return model.string();
}

nlohmann::json Reference(const std::string& name) {
  return nlohmann::json::parse(
      ReadFileOrDie(absl::StrCat(ODMOE_TEST_DATA, "/tiny-kimi-reference/", name, ".json")));
}

}  // namespace odmoe
