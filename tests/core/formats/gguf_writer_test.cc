#include "services/core/formats/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/core/formats/gguf_reader.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

GgufHeader SmallHeader() {
  GgufHeader header;
  header.metadata.Set("general.architecture", GgufValue::String("toy"));
  header.metadata.Set("a.f32", GgufValue::F32(0.1f));
  header.metadata.Set("a.texts", GgufValue::Strings({"x", "", "\xff"}));
  header.metadata.Set("a.flag", GgufValue::Bool(true));
  header.tensors = {{.name = "one", .dtype = DType::kF32, .ne = {3}},
                    {.name = "two", .dtype = DType::kQ8_0, .ne = {32, 2}}};
  return header;
}

std::string Write(const TemporaryDirectory& folder, GgufHeader header) {
  auto file = PosixFileSystem().OpenForWrite(folder / "file.gguf");
  auto writer = GgufWriter::Create(**file, std::move(header));
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const GgufTensor& tensor : (*writer)->tensors()) {
    const std::vector<std::byte> data(tensor.bytes, std::byte{7});
    // In pieces, as a stream comes.
    const auto span = absl::MakeConstSpan(data);
    EXPECT_EQ((*writer)->Append(span.first(1)), absl::OkStatus());
    EXPECT_EQ((*writer)->Append(span.subspan(1)), absl::OkStatus());
  }
  EXPECT_EQ((*writer)->Finish(), absl::OkStatus());
  EXPECT_EQ((*writer)->file_bytes(), (*file)->offset());
  EXPECT_EQ((*file)->Close(), absl::OkStatus());
  return folder / "file.gguf";
}

TEST(GgufWriterTest, WritesWhatTheReaderReads) {
  TemporaryDirectory folder;
  const std::string path = Write(folder, SmallHeader());
  const auto reader = GgufReader::Open(*PosixFileSystem().OpenForRead(path));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->metadata().entries(), SmallHeader().metadata.entries());
  ASSERT_EQ((*reader)->tensors().size(), 2u);
  EXPECT_EQ((*reader)->tensors()[1].offset, 32u);
  EXPECT_EQ((*reader)->tensors()[1].bytes, 68u);
  EXPECT_EQ((*reader)->file().size() % 32, 0u);
}

TEST(GgufWriterTest, KeepsToTheFilesOwnAlignment) {
  TemporaryDirectory folder;
  GgufHeader header = SmallHeader();
  header.metadata.Set(kGgufAlignmentKey, GgufValue::U32(256));
  const auto reader = GgufReader::Open(*PosixFileSystem().OpenForRead(Write(folder, header)));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->data_offset() % 256, 0u);
  EXPECT_EQ((*reader)->tensors()[1].offset, 256u);
}

TEST(GgufWriterTest, RefusesHeadersThatNoReaderWouldTake) {
  const auto refused = [](GgufTensor tensor) {
    GgufHeader header = SmallHeader();
    header.tensors.push_back(std::move(tensor));
    return std::string(LayOutGgufTensors(header).message());
  };
  EXPECT_THAT(refused({.name = "one", .ne = {1}}), HasSubstr("twice"));
  EXPECT_THAT(refused({.name = "", .ne = {1}}), HasSubstr("0 bytes"));
  EXPECT_THAT(refused({.name = std::string(64, 'n'), .ne = {1}}), HasSubstr("64 bytes"));
  EXPECT_THAT(refused({.name = "t", .ne = {}}), HasSubstr("dimensions"));
  EXPECT_THAT(refused({.name = "t", .ne = {int64_t{1} << 62}}), HasSubstr("too large"));
  GgufHeader header = SmallHeader();
  header.metadata.Set(kGgufAlignmentKey, GgufValue::U32(48));
  EXPECT_THAT(std::string(LayOutGgufTensors(header).message()), HasSubstr("power of two"));
}

TEST(GgufWriterTest, TellsTooManyAndTooFewBytes) {
  TemporaryDirectory folder;
  auto file = PosixFileSystem().OpenForWrite(folder / "file.gguf");
  auto writer = GgufWriter::Create(**file, SmallHeader());
  const std::vector<std::byte> data(13);
  EXPECT_EQ((*writer)->Append(data).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*writer)->Append(absl::MakeConstSpan(data).first(12)), absl::OkStatus());
  const absl::Status unfinished = (*writer)->Finish();
  EXPECT_EQ(unfinished.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(unfinished.message()), HasSubstr("'two' has 68 bytes, got 0"));
}

}  // namespace
}  // namespace odmoe
