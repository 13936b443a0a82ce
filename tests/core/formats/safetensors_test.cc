#include "services/core/formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/formats/bytes_file.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

std::string File(absl::string_view header, size_t data_bytes) {
  ByteString bytes;
  bytes.Add<uint64_t>(header.size()).AddRaw(header).AddRaw(std::string(data_bytes, '\1'));
  return bytes.bytes();
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> Open(std::string bytes) {
  return SafetensorsReader::Open(BytesFile(std::move(bytes)));
}

TEST(SafetensorsReaderTest, ReadsTensorsInTheOrderOfTheirData) {
  const auto reader = Open(File(
      R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},)"
      R"("a":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},"__metadata__":{"k":"v"}}  )",
      12));
  ASSERT_TRUE(reader.ok()) << reader.status();
  ASSERT_EQ((*reader)->tensors().size(), 2u);
  EXPECT_EQ((*reader)->tensors()[0].name, "a");
  EXPECT_EQ((*reader)->metadata().at("k"), "v");
  const SafetensorsTensor* b = (*reader)->Find("b");
  EXPECT_EQ(b->offset, (*reader)->data_offset() + 4);
  std::byte out[9];
  EXPECT_EQ((*reader)->ReadTensor(*b, 0, absl::MakeSpan(out).first(8)), absl::OkStatus());
  EXPECT_EQ((*reader)->ReadTensor(*b, 0, absl::MakeSpan(out)).code(),
            absl::StatusCode::kOutOfRange);
}

TEST(SafetensorsReaderTest, AcceptsEmptyTensorsAndScalars) {
  const auto reader = Open(File(
      R"({"none":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
      R"("scalar":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},)"
      R"("small":{"dtype":"F4","shape":[4],"data_offsets":[2,4]}})",
      4));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->tensors().size(), 3u);
}

TEST(SafetensorsHeaderTest, PutsTheDataOnTheBoundaryAndIsReadBack) {
  std::vector<SafetensorsTensor> tensors = {
      {.name = "w1.weight", .dtype = "BF16", .shape = {2, 3}, .bytes = 12},
      {.name = "w\"2\n", .dtype = "U8", .shape = {1, 34}, .bytes = 34}};
  const auto header = EncodeSafetensorsHeader(tensors, {{"w\"2\n.ggml_type", "q8_0"}}, 4096);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->size(), 4096u);
  EXPECT_EQ(header->back(), ' ');
  EXPECT_EQ(tensors[1].offset, 4096u + 12);
  const auto reader = Open(*header + std::string(46, 'x'));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->Find("w\"2\n")->offset, tensors[1].offset);
  EXPECT_EQ((*reader)->metadata().at("w\"2\n.ggml_type"), "q8_0");
}

TEST(SafetensorsHeaderTest, GrowsByWholePages) {
  std::vector<SafetensorsTensor> tensors;
  for (int i = 0; i < 200; ++i) {
    tensors.push_back(
        {.name = "tensor " + std::to_string(i), .dtype = "U8", .shape = {1}, .bytes = 1});
  }
  const auto header = EncodeSafetensorsHeader(tensors, {}, 4096);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_GT(header->size(), 4096u);
  EXPECT_EQ(header->size() % 4096, 0u);
  EXPECT_TRUE(Open(*header + std::string(200, 'x')).ok());
}

TEST(SafetensorsHeaderTest, RefusesSizesThatDoNotFitAndNamesThatAreNotText) {
  std::vector<SafetensorsTensor> wrong = {
      {.name = "t", .dtype = "F32", .shape = {2}, .bytes = 4}};
  EXPECT_EQ(EncodeSafetensorsHeader(wrong, {}, 8).status().code(),
            absl::StatusCode::kInvalidArgument);
  std::vector<SafetensorsTensor> name = {
      {.name = "\xff", .dtype = "U8", .shape = {1}, .bytes = 1}};
  EXPECT_EQ(EncodeSafetensorsHeader(name, {}, 8).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
