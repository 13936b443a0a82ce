// Every damaged file: refused with its code and message, without taking much memory, and in the
// corpus that the fuzz targets start from.
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/checkpoint.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/safetensors.h"
#include "tests/core/formats/bytes_file.h"
#include "tests/hostile/allocation_meter.h"
#include "tests/hostile/damaged_files.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

// What a header may take in memory: a constant for buffers, and a multiple of its size, for the
// largest of JSON's forms is about 50 times its text.
constexpr size_t kMostBytes = size_t{2} << 20;
constexpr size_t kMostTimes = 64;

struct Parser {
  const char* corpus;
  std::vector<DamagedFile> (*files)();
  // What it says of the bytes.
  std::function<absl::Status(const std::string&)> parse;
};

void PrintTo(const Parser& parser, std::ostream* out) { *out << parser.corpus; }

// The parts of two tensors that the indexes speak of.
absl::Status OpenCheckpoint(const std::string& index) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "config.json", "{}");
  WriteFileOrDie(folder / "model.safetensors.index.json", index);
  for (const auto& [part, tensor] : {std::pair{"part-1", "a"}, std::pair{"part-2", "b"}}) {
    std::vector<SafetensorsTensor> tensors = {
        {.name = tensor, .dtype = "F32", .shape = {1}, .bytes = 4}};
    WriteFileOrDie(folder / absl::StrCat(part, ".safetensors"),
                   EncodeSafetensorsHeader(tensors, {}, 8).value() + "1234");
  }
  return Checkpoint::Open(PosixFileSystem(), folder.path()).status();
}

const Parser kParsers[] = {
    {"gguf", DamagedGgufs,
     [](const std::string& bytes) { return GgufReader::Open(BytesFile(bytes)).status(); }},
    {"safetensors", DamagedSafetensors,
     [](const std::string& bytes) { return SafetensorsReader::Open(BytesFile(bytes)).status(); }},
    {"registry", DamagedRegistries,
     [](const std::string& bytes) {
       return ParseExpertRegistry(bytes, "m", "registry.json").status();
     }},
    {"metadata", DamagedMetadata,
     [](const std::string& bytes) { return ParseModelIndex(bytes, "metadata.json").status(); }},
    {"checkpoint_index", DamagedIndexes, OpenCheckpoint},
};

class HostileFilesTest : public testing::TestWithParam<Parser> {};

TEST_P(HostileFilesTest, AreRefusedByName) {
  std::set<std::string> names;
  for (const DamagedFile& file : GetParam().files()) {
    SCOPED_TRACE(file.name);
    EXPECT_TRUE(names.insert(file.name).second) << "there twice";
    const absl::Status status = GetParam().parse(file.bytes);
    EXPECT_EQ(status.code(), file.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file.message));
  }
  EXPECT_GE(names.size(), 10u);
}

TEST_P(HostileFilesTest, TakeLittleMemory) {
  for (const DamagedFile& file : GetParam().files()) {
    SCOPED_TRACE(file.name);
    const AllocationMeter meter;
    EXPECT_FALSE(GetParam().parse(file.bytes).ok());
    EXPECT_LT(meter.peak_bytes(), kMostBytes + kMostTimes * file.bytes.size());
  }
}

// ODMOE_WRITE_CORPUS=1 writes the corpus instead of comparing it.
TEST_P(HostileFilesTest, AreInTheCorpus) {
  const std::string folder =
      absl::StrCat(ODMOE_SOURCE_DIR "/tests/fuzz/corpus/", GetParam().corpus);
  const bool write = std::getenv("ODMOE_WRITE_CORPUS") != nullptr;
  if (write) std::filesystem::create_directories(folder);
  for (const DamagedFile& file : GetParam().files()) {
    const std::string path = absl::StrCat(folder, "/", file.name);
    if (write) WriteFileOrDie(path, file.bytes);
    EXPECT_TRUE(ReadFileOrDie(path) == file.bytes)
        << path << " differs; ODMOE_WRITE_CORPUS=1 writes it";
  }
}

INSTANTIATE_TEST_SUITE_P(All, HostileFilesTest, testing::ValuesIn(kParsers),
                         [](const auto& info) { return std::string(info.param.corpus); });

// The meter itself: what it does not see would pass everything.
TEST(AllocationMeterTest, SeesThePeak) {
  const AllocationMeter meter;
  { const std::vector<char> large(size_t{5} << 20); }
  EXPECT_GE(meter.peak_bytes(), size_t{5} << 20);
  EXPECT_LT(meter.peak_bytes(), size_t{6} << 20);
}

// A header of nothing but what grows most in memory.
TEST(HostileSizesTest, LargeHeadersStayWithinTheirMultiple) {
  ByteString gguf;
  constexpr uint64_t kElements = uint64_t{4} << 20;
  gguf.AddRaw("GGUF").Add(uint32_t{3}).Add(uint64_t{0}).Add(uint64_t{1}).AddString("k");
  gguf.Add(int32_t{9}).Add(int32_t{0}).Add(kElements).AddRaw(std::string(kElements, '\1'));
  std::string json = "{\"t\":[";
  for (int i = 0; i < 500000; ++i) json += "0,";
  json += "0]}";
  const std::string safetensors =
      ByteString().Add<uint64_t>(json.size()).AddRaw(json).bytes();
  {
    auto file = BytesFile(gguf.bytes());
    const AllocationMeter meter;
    EXPECT_TRUE(GgufReader::Open(std::move(file)).ok());
    EXPECT_LT(meter.peak_bytes(), kMostBytes + kMostTimes * gguf.bytes().size());
  }
  {
    auto file = BytesFile(safetensors);
    const AllocationMeter meter;
    EXPECT_FALSE(SafetensorsReader::Open(std::move(file)).ok());
    EXPECT_LT(meter.peak_bytes(), kMostBytes + kMostTimes * safetensors.size());
  }
}

}  // namespace
}  // namespace odmoe
