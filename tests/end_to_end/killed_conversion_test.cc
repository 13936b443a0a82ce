// kill -9 of conversions at random points: the same command goes on, to the same bytes, and what
// reads as complete is. ODMOE_KILLS says how often each of the four kinds is killed.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

std::string ContentOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Every file below `expected`, or `expected` itself, is at `actual` with the same bytes.
void ExpectSame(const fs::path& expected, const fs::path& actual) {
  if (!fs::is_directory(expected)) {
    EXPECT_TRUE(ContentOf(expected) == ContentOf(actual)) << actual << " differs";
    return;
  }
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(expected)) {
    if (!entry.is_regular_file()) continue;
    const fs::path inside = fs::relative(entry.path(), expected);
    EXPECT_TRUE(ContentOf(entry.path()) == ContentOf(actual / inside)) << inside << " differs";
  }
}

// Where a file's tensors begin: behind what a safetensors file says is its header, or so far from
// the end of a GGUF file.
size_t DataStart(const std::string& file, const fs::path& path, uint64_t gguf_data_bytes) {
  if (path.extension() == ".gguf")
    return file.size() - std::min<size_t>(file.size(), gguf_data_bytes);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  return sizeof(header_bytes) + header_bytes;
}

// Bytes of tensors that are in the partial files already, by what they will be; zeros do not tell.
uint64_t WrittenBytes(const fs::path& reference, const fs::path& work, const fs::path& output,
                      uint64_t gguf_data_bytes) {
  uint64_t written = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(work)) {
    const fs::path partial = entry.path();
    if (partial.extension() != ".partial") continue;
    const fs::path named = fs::path(partial).replace_extension();
    const fs::path whole =
        fs::is_directory(reference) ? reference / fs::relative(named, output) : reference;
    const std::string expected = ContentOf(whole), actual = ContentOf(partial);
    const size_t start = DataStart(expected, whole, gguf_data_bytes);
    for (size_t i = start; i < std::min(expected.size(), actual.size()); ++i) {
      written += actual[i] != 0 && actual[i] == expected[i];
    }
  }
  return written;
}

// What a finished conversion must not have left.
std::vector<std::string> Leftovers(const fs::path& folder, const fs::path& output) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(".partial") || name.ends_with(".journal")) names.push_back(name);
  }
  if (!fs::exists(output)) names.push_back("no output");
  return names;
}

struct Kind {
  std::string name;
  std::vector<std::string> command;  // of which "IN" is the input, "OUT" the output
  std::string input;                 // "checkpoint", "gguf" or "directory"
  std::string output;
  std::string completing_file;       // below the output; empty: the output itself
};

class KilledConversionTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    input_ = TinyKimiCheckpoint();
    if (GetParam().input == "checkpoint") return;
    input_ = folder_ / (GetParam().input == "gguf" ? "in.gguf" : "in");
    ASSERT_EQ(Odmoe({"convert", TinyKimiCheckpoint(), "-o", input_}).exit.code, 0);
  }

  std::vector<std::string> Command(const std::string& output) const {
    std::vector<std::string> arguments;
    for (const std::string& word : GetParam().command) {
      arguments.push_back(word == "IN" ? input_ : word == "OUT" ? output : word);
    }
    return arguments;
  }

  // Of what is written, all but a piece (2 MiB of numbers at most) of one tensor or expert is gone
  // on with, though eight workers were at it.
  void ExpectOnePieceToRepeat(const fs::path& reference, const fs::path& work,
                              const std::string& output) const {
    std::vector<std::string> command = Command(output);
    command.insert(command.end(), {"--dry-run", "--json"});
    const nlohmann::json plan = OdmoeJson(command);
    const uint64_t kept = plan["resumed_bytes"];
    EXPECT_LE(WrittenBytes(reference, work, output, plan["data_bytes"]), kept + (2 << 20));
  }

  fs::path CompletingFile(const fs::path& output) const {
    return GetParam().completing_file.empty() ? output : output / GetParam().completing_file;
  }

  const TemporaryDirectory folder_;
  std::string input_;
};

int64_t Kills() {
#if defined(__SANITIZE_ADDRESS__)
  int64_t kills = 5;  // starting a sanitized program takes long
#else
  int64_t kills = 50;
#endif
  const char* asked = std::getenv("ODMOE_KILLS");
  if (asked != nullptr) { EXPECT_TRUE(absl::SimpleAtoi(asked, &kills)); }
  return kills;
}

TEST_P(KilledConversionTest, GoesOnToTheSameBytes) {
  const std::string reference = folder_ / absl::StrCat("reference-", GetParam().output);
  const absl::Time began = absl::Now();
  ASSERT_EQ(Odmoe(Command(reference)).exit.code, 0);
  const absl::Duration whole = absl::Now() - began;

  const fs::path work = folder_ / "work";
  fs::create_directory(work);
  const std::string output = work / GetParam().output;
  std::minstd_rand random(static_cast<uint32_t>(std::hash<std::string>()(GetParam().name)));
  for (int64_t kill = 0; kill < Kills(); ++kill) {
    auto process = StartOdmoe(Command(output));
    ASSERT_NE(process, nullptr);
    // Any point will do, so this may sleep; none of what is checked depends on how long.
    absl::SleepFor(whole * std::uniform_real_distribution<double>(0.0, 1.0)(random));
    process->Kill();
    if (!fs::exists(CompletingFile(output))) {
      if (GetParam().command[0] == "convert") ExpectOnePieceToRepeat(reference, work, output);
      continue;
    }
    ExpectSame(reference, output);
    fs::remove_all(work);
    fs::create_directory(work);
  }
  const ProcessOutput last = Odmoe(Command(output));
  ASSERT_EQ(last.exit.code, 0) << last.err;
  ExpectSame(reference, output);
  EXPECT_EQ(Leftovers(work, output), std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, KilledConversionTest,
    testing::Values(Kind{"Convert",
                         {"convert", "IN", "-o", "OUT", "--concurrency", "8"},
                         "checkpoint",
                         "out.gguf",
                         ""},
                    Kind{"ConvertToDirectory",
                         {"convert", "IN", "-o", "OUT", "--concurrency", "8"},
                         "checkpoint",
                         "out",
                         "experts/registry.json"},
                    Kind{"Split",
                         {"convert", "IN", "-o", "OUT", "--concurrency", "8"},
                         "gguf",
                         "out",
                         "experts/registry.json"},
                    Kind{"Merge", {"merge", "IN", "-o", "OUT"}, "directory", "out.gguf", ""}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace odmoe
