// Conversions that fail at each write, are cancelled at each step, or do not fit the disk.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/convert.h"
#include "converter/toy/toy_model.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/model_directory.h"
#include "tests/converter/faulty_file_system.h"
#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

// Every file below `folder`, by path.
std::map<std::string, std::string> FilesBelow(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[entry.path()] = ReadFileOrDie(entry.path());
  }
  return files;
}

absl::Status Convert(const ConvertOptions& options) {
  const auto plan = PlanConversion(options);
  if (!plan.ok()) return plan.status();
  return RunConversion(*plan, nullptr, nullptr);
}

std::string MakeToy(const TemporaryDirectory& folder) {
  const ToyOptions options{.dim = 32, .ffn_dim = 32};
  EXPECT_EQ(WriteToyModel(options, folder / "toy.gguf"), absl::OkStatus());
  return folder / "toy.gguf";
}

bool HasAll(const std::map<std::string, std::string>& files,
            const std::map<std::string, std::string>& expected) {
  return std::includes(files.begin(), files.end(), expected.begin(), expected.end());
}

// Converts with the call `at` failing, then without a fault; false where there was no such call.
bool FailsThenGoesOn(ConvertOptions options, int64_t at, const absl::Status& failure,
                     const std::function<bool()>& is_complete,
                     const std::map<std::string, std::string>& expected,
                     const std::string& folder) {
  FaultyFileSystem faulty(at, failure, /*stays_broken=*/at % 2 == 0);
  options.file_system = &faulty;
  const absl::Status status = Convert(options);
  if (faulty.calls() <= at) {
    EXPECT_EQ(status, absl::OkStatus());
    return false;
  }
  EXPECT_EQ(status.code(), failure.code()) << "call " << at << ": " << status;
  EXPECT_TRUE(!is_complete() || HasAll(FilesBelow(folder), expected)) << "call " << at;
  FaultyFileSystem sound(FaultyFileSystem::kNever, absl::OkStatus(), false);
  options.file_system = &sound;
  EXPECT_EQ(Convert(options), absl::OkStatus()) << "call " << at;
  EXPECT_TRUE(FilesBelow(folder) == expected) << "call " << at;
  return true;
}

const absl::Status kFailures[] = {absl::ResourceExhaustedError("no space left on device"),
                                  absl::DataLossError("input/output error")};

// The engine below is tested at each call; here, that the conversions go through it.
TEST(FaultTest, ASplitThatFailsAtAWriteShowsNothingCompleteAndGoesOn) {
  TemporaryDirectory folder;
  const ConvertOptions options{.source = MakeToy(folder), .destination = folder / "out/model"};
  ASSERT_EQ(Convert(options), absl::OkStatus());
  const auto expected = FilesBelow(folder / "out");
  for (const absl::Status& failure : kFailures) {
    int64_t at = 0;
    for (bool reached = true; reached && !HasFailure(); at = at * 5 / 4 + 1) {
      std::filesystem::remove_all(folder / "out");
      reached = FailsThenGoesOn(
          options, at, failure,
          [&] { return ReadExpertRegistry(folder / "out/model").ok(); }, expected, folder / "out");
    }
  }
}

TEST(FaultTest, AConversionToAGgufThatFailsAtAWriteShowsNothingCompleteAndGoesOn) {
  TemporaryDirectory folder;
  const ConvertOptions options{.source = kCheckpoint, .destination = folder / "out/model.gguf"};
  ASSERT_EQ(Convert(options), absl::OkStatus());
  const auto expected = FilesBelow(folder / "out");
  bool reached = true;
  for (int64_t at = 0; reached && !HasFailure(); at = at * 3 / 2 + 1) {
    std::filesystem::remove_all(folder / "out");
    reached = FailsThenGoesOn(
        options, at, kFailures[at % 2],
        [&] { return std::filesystem::exists(options.destination); }, expected, folder / "out");
  }
}

TEST(FaultTest, AFullDiskIsToldWithTheBytesMissingAndFree) {
  TemporaryDirectory folder;
  FaultyFileSystem faulty(40, absl::ResourceExhaustedError("no space left on device"), true);
  faulty.set_free_bytes(123456789);
  const absl::Status status = Convert(
      {.source = MakeToy(folder), .destination = folder / "model", .file_system = &faulty});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              testing::MatchesRegex("no space left on device .*\\([0-9]+ bytes\\) still needed for "
                                    ".*123456789 bytes\\) free; once there is room.*"));
}

// What no journal speaks of: half a file, a whole one, from whatever came before.
TEST(FaultTest, StrayFilesAreOverwritten) {
  TemporaryDirectory folder;
  const std::string toy = MakeToy(folder);
  std::filesystem::create_directories(folder / "model/experts");
  for (const char* name : {"layer_01_expert_000.safetensors.partial",
                           "layer_01_expert_000.safetensors", "layer_77_expert_000.partial"}) {
    WriteFileOrDie(folder / (std::string("model/experts/") + name), std::string(1 << 20, 'x'));
  }
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "model"}), absl::OkStatus());
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "fresh"}), absl::OkStatus());
  std::vector<std::string> model, fresh;
  for (const auto& [path, bytes] : FilesBelow(folder / "model")) model.push_back(bytes);
  for (const auto& [path, bytes] : FilesBelow(folder / "fresh")) fresh.push_back(bytes);
  EXPECT_EQ(model, fresh);
}

// A model that is replaced stays whole until the new one is, and never mixes with it.
TEST(FaultTest, AFailedSplitOverAnOldModelLeavesTheOldOneOrNoneComplete) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({.dim = 32, .ffn_dim = 32, .seed = 1}, folder / "old.gguf"),
            absl::OkStatus());
  const std::string toy = MakeToy(folder);
  ASSERT_EQ(Convert({.source = folder / "old.gguf", .destination = folder / "model"}),
            absl::OkStatus());
  const auto old_files = FilesBelow(folder / "model");
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "other"}), absl::OkStatus());
  const std::string new_registry = ReadFileOrDie(folder / "other/experts/registry.json");
  int replaced = 0;
  for (int64_t at = 0; at < 1000; at += at < 80 ? 7 : 1) {
    FaultyFileSystem faulty(at, absl::DataLossError("input/output error"), true);
    const absl::Status status = Convert({.source = toy, .destination = folder / "model",
                                         .restart = true, .file_system = &faulty});
    if (faulty.calls() <= at) break;
    ASSERT_FALSE(status.ok());
    if (!ReadExpertRegistry(folder / "model").ok()) {
      ++replaced;
    } else if (ReadFileOrDie(folder / "model/experts/registry.json") != new_registry) {
      for (const auto& [path, bytes] : old_files) ASSERT_TRUE(ReadFileOrDie(path) == bytes) << at;
      continue;
    }
    // Back to the old one for the next round.
    FaultyFileSystem sound(FaultyFileSystem::kNever, absl::OkStatus(), false);
    std::filesystem::remove_all(folder / "model");
    ASSERT_EQ(Convert({.source = folder / "old.gguf", .destination = folder / "model",
                       .file_system = &sound}),
              absl::OkStatus());
  }
  EXPECT_GT(replaced, 5);
}

TEST(CancellationTest, StopsWithinAChunkAndLeavesNothing) {
  TemporaryDirectory folder;
  for (const auto& [destination, after_bytes] :
       {std::pair{"model", uint64_t{0}}, std::pair{"model", uint64_t{9 << 20}},
        std::pair{"model.gguf", uint64_t{0}}, std::pair{"model.gguf", uint64_t{15 << 20}}}) {
    const auto plan =
        PlanConversion({.source = kCheckpoint, .destination = folder / destination});
    ASSERT_TRUE(plan.ok()) << plan.status();
    Cancellation cancellation;
    uint64_t seen_after = 0;
    const absl::Status status =
        RunConversion(*plan, &cancellation, [&](const ConvertProgress& progress) {
          if (cancellation.cancelled()) ++seen_after;
          if (progress.done_bytes >= after_bytes) cancellation.Cancel();
        });
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << destination;
    EXPECT_EQ(seen_after, 0u) << destination;
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << destination;
  }
}

TEST(CancellationTest, KeepsWhatIsDoneWhereThatIsAskedFor) {
  TemporaryDirectory folder;
  const ConvertOptions options{.source = kCheckpoint, .destination = folder / "model.gguf"};
  const auto plan = PlanConversion(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  Cancellation cancellation;
  const absl::Status status =
      RunConversion(*plan, &cancellation, [&](const ConvertProgress& progress) {
        if (progress.done_bytes >= 9 << 20) cancellation.CancelAndKeepWork();
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(HasUnfinishedConversion(PosixFileSystem(), options.destination));
  const auto again = PlanConversion(options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_GT(again->resumed_bytes, 1u << 20);
  uint64_t first = 0;
  ASSERT_EQ(RunConversion(*again, nullptr,
                          [&](const ConvertProgress& progress) {
                            if (first == 0) first = progress.done_bytes;
                          }),
            absl::OkStatus());
  EXPECT_FALSE(HasUnfinishedConversion(PosixFileSystem(), options.destination));
  ASSERT_EQ(Convert({.source = kCheckpoint, .destination = folder / "whole.gguf"}),
            absl::OkStatus());
  EXPECT_TRUE(ReadFileOrDie(options.destination) == ReadFileOrDie(folder / "whole.gguf"));
}

TEST(ProgressTest, CountsEachStepsBytesToTheirTotal) {
  TemporaryDirectory folder;
  const auto plan = PlanConversion({.source = kCheckpoint, .destination = folder / "model"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->steps, testing::ElementsAre("convert"));
  std::map<int, ConvertProgress> last;
  ASSERT_EQ(RunConversion(*plan, nullptr,
                          [&](const ConvertProgress& progress) {
                            ASSERT_GE(progress.done_bytes, last[progress.step_number].done_bytes);
                            ASSERT_FALSE(progress.item.empty());
                            last[progress.step_number] = progress;
                          }),
            absl::OkStatus());
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[1].done_bytes, last[1].total_bytes);
  EXPECT_EQ(last[1].total_bytes, plan->step_bytes[0]);
  EXPECT_EQ(last[1].step_count, 1);
}

TEST(PlanTest, RefusesADiskThatIsTooSmallWithBothNumbers) {
  TemporaryDirectory folder;
  FaultyFileSystem fs(FaultyFileSystem::kNever, absl::OkStatus(), false);
  fs.set_free_bytes(1000000);
  for (const std::string& destination : {folder / "model", folder / "model.gguf"}) {
    const auto plan = PlanConversion(
        {.source = kCheckpoint, .destination = destination, .file_system = &fs});
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr("1000000 bytes) free"));
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr("needed"));
  }
}

// The plan's figure must cover what is then written, at its peak.
TEST(PlanTest, AsksForEnoughDiskAndNotMuchMore) {
  TemporaryDirectory folder;
  for (const std::string& destination : {folder / "model", folder / "model.gguf"}) {
    const auto plan = PlanConversion({.source = kCheckpoint, .destination = destination});
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
    uint64_t written = 0;
    if (std::filesystem::is_directory(destination)) {
      for (const auto& [path, bytes] : FilesBelow(destination)) written += bytes.size();
    } else {
      written = std::filesystem::file_size(destination);
    }
    EXPECT_GE(plan->disk_bytes, written);
    EXPECT_LE(plan->disk_bytes, written + (4 << 20));
  }
}

TEST(PlanTest, RefusesWhatIsNoModel) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "text.gguf", "this is not a model");
  std::filesystem::create_directories(folder / "empty");
  const auto refusal = [&](const ConvertOptions& options) {
    return PlanConversion(options).status();
  };
  const std::string to = folder / "model";
  EXPECT_EQ(refusal({folder / "text.gguf", to}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refusal({folder / "text.gguf", to}).message()),
              HasSubstr("not a GGUF file"));
  EXPECT_EQ(refusal({folder / "empty", to}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal({folder / "missing", to}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(refusal({"", to}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal({kCheckpoint, ""}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal({kCheckpoint, to, "q9_9"}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal({MakeToy(folder), folder / "other.gguf"}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
