// Conversions that fail at each write, are cancelled at each step, or do not fit the disk.
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/convert.h"
#include "converter/toy/toy_model.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/model_directory.h"
#include "tests/converter/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

const std::string kCheckpoint = ODMOE_TEST_DATA "/tiny-kimi";

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

TEST(FaultTest, ASplitThatFailsAtAnyWriteLeavesNoFile) {
  TemporaryDirectory folder;
  const std::string toy = MakeToy(folder);
  FaultyFileSystem counting(FaultyFileSystem::kNever, absl::OkStatus(), false);
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "whole", .file_system = &counting}),
            absl::OkStatus());
  ASSERT_GT(counting.calls(), 60);
  for (const absl::Status& failure : {absl::ResourceExhaustedError("no space left on device"),
                                      absl::DataLossError("input/output error")}) {
    for (int64_t at = 0; at < counting.calls(); ++at) {
      FaultyFileSystem faulty(at, failure, /*stays_broken=*/at % 2 == 0);
      const std::string destination = folder / "model";
      const absl::Status status =
          Convert({.source = toy, .destination = destination, .file_system = &faulty});
      // The last call syncs the folder after the registry's rename.
      ASSERT_EQ(status.code(), failure.code()) << "call " << at << ": " << status;
      ASSERT_EQ(ReadExpertRegistry(destination).status().code(), absl::StatusCode::kNotFound)
          << "call " << at;
      if (std::filesystem::exists(destination)) {
        ASSERT_TRUE(FilesBelow(destination).empty()) << "call " << at;
      }
    }
  }
}

TEST(FaultTest, AnHonestRetryAfterAFailureGivesTheSameBytes) {
  TemporaryDirectory folder;
  const std::string toy = MakeToy(folder);
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "model"}), absl::OkStatus());
  const auto expected = FilesBelow(folder / "model");
  FaultyFileSystem faulty(40, absl::DataLossError("input/output error"), true);
  ASSERT_FALSE(
      Convert({.source = toy, .destination = folder / "model", .file_system = &faulty}).ok());
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "model"}), absl::OkStatus());
  EXPECT_EQ(FilesBelow(folder / "model"), expected);
}

// What a process killed in the middle leaves: no registry, half a file, an old intermediate.
TEST(FaultTest, LeftoversOfAKilledConversionAreOverwritten) {
  TemporaryDirectory folder;
  const std::string toy = MakeToy(folder);
  std::filesystem::create_directories(folder / "model/experts");
  WriteFileOrDie(folder / "model/experts/layer_01_expert_000.safetensors.partial",
                 std::string(1 << 20, 'x'));
  WriteFileOrDie(folder / "model/experts/layer_01_expert_000.safetensors",
                 std::string(1 << 20, 'y'));
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "model"}), absl::OkStatus());
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "fresh"}), absl::OkStatus());
  std::vector<std::string> model, fresh;
  for (const auto& [path, bytes] : FilesBelow(folder / "model")) model.push_back(bytes);
  for (const auto& [path, bytes] : FilesBelow(folder / "fresh")) fresh.push_back(bytes);
  EXPECT_EQ(model, fresh);
}

TEST(FaultTest, AFailedSplitOverAnOldModelDoesNotPassForComplete) {
  TemporaryDirectory folder;
  const std::string toy = MakeToy(folder);
  ASSERT_EQ(Convert({.source = toy, .destination = folder / "model"}), absl::OkStatus());
  FaultyFileSystem faulty(30, absl::ResourceExhaustedError("no space left on device"), true);
  ASSERT_FALSE(
      Convert({.source = toy, .destination = folder / "model", .file_system = &faulty}).ok());
  EXPECT_EQ(ReadExpertRegistry(folder / "model").status().code(), absl::StatusCode::kNotFound);
}

TEST(FaultTest, AConversionThatFailsAtAnyWriteLeavesNoGguf) {
  TemporaryDirectory folder;
  FaultyFileSystem counting(FaultyFileSystem::kNever, absl::OkStatus(), false);
  const ConvertOptions whole{.source = kCheckpoint, .destination = folder / "whole.gguf",
                             .outtype = "bf16", .file_system = &counting};
  ASSERT_EQ(Convert(whole), absl::OkStatus());
  // A prime stride, so that header, data, padding, sync, close and rename all come by.
  for (int64_t at = 0; at < counting.calls(); at += at + 40 < counting.calls() ? 37 : 1) {
    FaultyFileSystem faulty(at, absl::ResourceExhaustedError("no space left on device"), true);
    ConvertOptions options = whole;
    options.destination = folder / "out/model.gguf";
    options.file_system = &faulty;
    const absl::Status status = Convert(options);
    ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << "call " << at;
    // After the rename only the folder's sync is left to fail; the file is whole by then.
    if (at + 1 == counting.calls()) continue;
    ASSERT_FALSE(std::filesystem::exists(options.destination)) << "call " << at;
    ASSERT_FALSE(std::filesystem::exists(options.destination + ".partial")) << "call " << at;
  }
}

TEST(CancellationTest, StopsWithinAChunkAndLeavesNothing) {
  TemporaryDirectory folder;
  for (const auto& [step, after_bytes] :
       {std::pair{"convert", uint64_t{0}}, std::pair{"convert", uint64_t{9 << 20}},
        std::pair{"split", uint64_t{0}}, std::pair{"split", uint64_t{15 << 20}}}) {
    const auto plan = PlanConversion({.source = kCheckpoint, .destination = folder / "model"});
    ASSERT_TRUE(plan.ok()) << plan.status();
    Cancellation cancellation;
    uint64_t seen_after = 0;
    const absl::Status status =
        RunConversion(*plan, &cancellation, [&](const ConvertProgress& progress) {
          if (cancellation.cancelled()) ++seen_after;
          if (progress.step == step && progress.done_bytes >= after_bytes) cancellation.Cancel();
        });
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << step;
    EXPECT_EQ(seen_after, 0u) << step;
    EXPECT_TRUE(FilesBelow(folder.path()).empty()) << step;
  }
}

TEST(ProgressTest, CountsEachStepsBytesToTheirTotal) {
  TemporaryDirectory folder;
  const auto plan = PlanConversion({.source = kCheckpoint, .destination = folder / "model"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->steps, testing::ElementsAre("convert", "split"));
  std::map<int, ConvertProgress> last;
  ASSERT_EQ(RunConversion(*plan, nullptr,
                          [&](const ConvertProgress& progress) {
                            ASSERT_GE(progress.done_bytes, last[progress.step_number].done_bytes);
                            ASSERT_FALSE(progress.item.empty());
                            last[progress.step_number] = progress;
                          }),
            absl::OkStatus());
  ASSERT_EQ(last.size(), 2u);
  for (const auto& [number, progress] : last) {
    EXPECT_EQ(progress.done_bytes, progress.total_bytes);
    EXPECT_EQ(progress.step_count, 2);
  }
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
      written += plan->step_bytes[0];  // the GGUF file between the steps
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
  const auto refusal = [&](const ConvertOptions& options) { return PlanConversion(options).status(); };
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
