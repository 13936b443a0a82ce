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

struct Damaged {
  const char* name;
  std::string bytes;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const Damaged& damaged, std::ostream* out) { *out << damaged.name; }

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kLoss = absl::StatusCode::kDataLoss;

// A header of one tensor "t".
std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_bytes) {
  return File("{\"t\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" +
                  offsets + "}}",
              data_bytes);
}

const Damaged kDamaged[] = {
    {"Empty", "", kInvalid, "it has 0 bytes"},
    {"OnlyALength", std::string(8, '\0'), kInvalid, "it has 8 bytes"},
    {"LengthBeyondTheFormat", ByteString().Add<uint64_t>(100000001).AddRaw("{}").bytes(), kInvalid,
     "header length of 100000001"},
    {"LengthHuge", ByteString().Add(~uint64_t{0}).AddRaw("{}").bytes(), kInvalid,
     "header length of 18446744073709551615"},
    {"LengthBeyondTheFile", ByteString().Add<uint64_t>(1000).AddRaw("{}").bytes(), kLoss,
     "a header of 1000 bytes; the file has 10"},
    {"NotAnObject", File("[1, 2]", 0), kInvalid, "expected '{'"},
    {"NotJson", File("{nonsense}", 0), kInvalid, "not valid JSON"},
    {"KeyTwice",
     File(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
          R"("t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          1),
     kInvalid, "'t' is there twice"},
    {"MetadataNotStrings", File(R"({"__metadata__":{"k":1}})", 0), kLoss, "should be a string"},
    {"TensorNotAnObject", File(R"({"t":[]})", 0), kLoss, "should be an object"},
    {"NoDtype", File(R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1), kLoss, "'dtype'"},
    {"UnknownDtype", One("\"Q4\"", "[1]", "[0,1]", 1), kLoss, "unknown safetensors dtype 'Q4'"},
    {"NegativeDimension", One("\"U8\"", "[-1]", "[0,1]", 1), kLoss, "'shape'"},
    {"FractionalDimension", One("\"U8\"", "[1.5]", "[0,1]", 1), kLoss, "'shape'"},
    {"ShapeOverflows",
     One("\"F32\"", "[4294967296,4294967296]", "[0,0]", 0), kLoss, "too large"},
    {"ShapeOverflowsInBits", One("\"F64\"", "[288230376151711744]", "[0,0]", 0), kLoss,
     "too large"},
    {"HalfAByte", One("\"F4\"", "[3]", "[0,2]", 2), kLoss, "not a whole number of bytes"},
    {"SizeAndShapeDiffer", One("\"F32\"", "[2]", "[0,4]", 4), kLoss, "takes 8 bytes"},
    {"EndBeforeBegin", One("\"U8\"", "[1]", "[2,1]", 4), kLoss, "do not lie in the 4 bytes"},
    {"EndBeyondTheFile", One("\"U8\"", "[9]", "[0,9]", 8), kLoss, "do not lie in the 8 bytes"},
    {"OneOffset", One("\"U8\"", "[1]", "[0]", 1), kLoss, "[begin, end]"},
    {"NegativeOffset", One("\"U8\"", "[1]", "[-1,0]", 1), kLoss, "[begin, end]"},
    {"GapAtTheStart", One("\"U8\"", "[1]", "[1,2]", 2), kLoss, "should begin at 0"},
    {"BytesLeftOver", One("\"U8\"", "[1]", "[0,1]", 2), kLoss, "end at 1 of the data"},
    {"Overlap",
     File(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
          R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          3),
     kLoss, "tensor 'b' should begin at 2"},
    {"Gap",
     File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
          R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
          3),
     kLoss, "tensor 'b' should begin at 1"},
};

class DamagedSafetensorsTest : public testing::TestWithParam<Damaged> {};

TEST_P(DamagedSafetensorsTest, IsRefusedByName) {
  const auto reader = Open(GetParam().bytes);
  EXPECT_EQ(reader.status().code(), GetParam().code) << reader.status();
  EXPECT_THAT(std::string(reader.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(All, DamagedSafetensorsTest, testing::ValuesIn(kDamaged),
                         [](const auto& info) { return std::string(info.param.name); });

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
