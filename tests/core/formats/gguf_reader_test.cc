#include "services/core/formats/gguf_reader.h"

#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/formats/bytes_file.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ByteString Header(uint32_t version, uint64_t tensors, uint64_t keys) {
  ByteString bytes;
  bytes.AddRaw("GGUF").Add(version).Add(tensors).Add(keys);
  return bytes;
}

// Start of a key: its name and its type.
ByteString& Key(ByteString& bytes, absl::string_view name, GgufType type) {
  return bytes.AddString(name).Add(static_cast<int32_t>(type));
}

ByteString& Tensor(ByteString& bytes, absl::string_view name, std::vector<int64_t> ne,
                   uint32_t type, uint64_t offset) {
  bytes.AddString(name).Add(static_cast<uint32_t>(ne.size()));
  for (int64_t n : ne) bytes.Add(n);
  return bytes.Add(type).Add(offset);
}

absl::StatusOr<std::unique_ptr<GgufReader>> Open(const ByteString& bytes) {
  return GgufReader::Open(BytesFile(bytes.bytes()));
}

// Two keys, two f32 tensors of 3 and 4 elements, the second after padding.
ByteString Valid(uint32_t version = 3) {
  ByteString bytes = Header(version, 2, 2);
  Key(bytes, "general.architecture", GgufType::kString).AddString("deepseek2");
  Key(bytes, "numbers", GgufType::kArray)
      .Add(static_cast<int32_t>(GgufType::kI16))
      .Add<uint64_t>(3)
      .Add<int16_t>(-1)
      .Add<int16_t>(0)
      .Add<int16_t>(32767);
  Tensor(bytes, "a", {3}, 0, 0);
  Tensor(bytes, "b", {2, 2}, 0, 32);
  bytes.PadTo(32);
  for (float v : {1.0f, 2.0f, 3.0f}) bytes.Add(v);
  bytes.PadTo(32);
  for (float v : {4.0f, 5.0f, 6.0f, 7.0f}) bytes.Add(v);
  return bytes;
}

TEST(GgufReaderTest, ReadsKeysAndTensorsOfVersions2And3) {
  for (uint32_t version : {2u, 3u}) {
    const auto reader = Open(Valid(version));
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ((*reader)->version(), version);
    EXPECT_EQ(*(*reader)->metadata().GetString("general.architecture"), "deepseek2");
    EXPECT_THAT(*(*reader)->metadata().GetInts("numbers"), ElementsAre(-1, 0, 32767));
    ASSERT_EQ((*reader)->tensors().size(), 2u);
    const GgufTensor* b = (*reader)->Find("b");
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->rows(), 2);
    float values[2];
    ASSERT_EQ((*reader)->ReadTensor(
                  *b, 8, absl::MakeSpan(reinterpret_cast<std::byte*>(values), sizeof(values))),
              absl::OkStatus());
    EXPECT_THAT(values, ElementsAre(6.0f, 7.0f));
    EXPECT_EQ((*reader)->Find("c"), nullptr);
  }
}

TEST(GgufReaderTest, ReadsATensorOnlyWithinItsOwnBytes) {
  const auto reader = Open(Valid());
  std::byte out[8];
  const GgufTensor& a = (*reader)->tensors()[0];
  EXPECT_EQ((*reader)->ReadTensor(a, 8, absl::MakeSpan(out)).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*reader)->ReadTensor(a, ~uint64_t{0}, absl::MakeSpan(out)).code(),
            absl::StatusCode::kOutOfRange);
}

TEST(GgufReaderTest, KeepsEveryTypeOfValue) {
  ByteString bytes = Header(3, 0, 12);
  Key(bytes, "u8", GgufType::kU8).Add<uint8_t>(255);
  Key(bytes, "i8", GgufType::kI8).Add<int8_t>(-128);
  Key(bytes, "u16", GgufType::kU16).Add<uint16_t>(65535);
  Key(bytes, "i16", GgufType::kI16).Add<int16_t>(-32768);
  Key(bytes, "u32", GgufType::kU32).Add<uint32_t>(4294967295u);
  Key(bytes, "i32", GgufType::kI32).Add<int32_t>(-5);
  Key(bytes, "f32", GgufType::kF32).Add<uint32_t>(0x7f800001);  // a signalling NaN
  Key(bytes, "bool", GgufType::kBool).Add<uint8_t>(1);
  Key(bytes, "text", GgufType::kString).AddString("\xff\0x");
  Key(bytes, "u64", GgufType::kU64).Add(~uint64_t{0});
  Key(bytes, "i64", GgufType::kI64).Add(std::numeric_limits<int64_t>::min());
  Key(bytes, "f64", GgufType::kF64).Add(1e300);
  const auto reader = Open(bytes);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const GgufMetadata& metadata = (*reader)->metadata();
  EXPECT_EQ(*metadata.GetU32("u8"), 255u);
  EXPECT_EQ(*metadata.GetU32("u32"), 4294967295u);
  EXPECT_EQ(metadata.GetU32("i8").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metadata.GetU32("u64").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metadata.GetU32("bool").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(*metadata.GetBool("bool"));
  EXPECT_EQ(NarrowToF32Bits(std::get<double>(metadata.Find("f32")->scalar)), 0x7f800001u);
  EXPECT_EQ(std::get<int64_t>(metadata.Find("i64")->scalar), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(*metadata.GetU32Or("none", 7), 7u);
  EXPECT_EQ(metadata.GetU32Or("text", 7).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metadata.GetString("none").status().code(), absl::StatusCode::kNotFound);
}

// A damaged file, and what is said of it.
struct Damaged {
  const char* name;
  std::function<ByteString()> make;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const Damaged& damaged, std::ostream* out) { *out << damaged.name; }

ByteString OneKey(GgufType type) {
  ByteString bytes = Header(3, 0, 1);
  Key(bytes, "key", type);
  return bytes;
}

ByteString OneTensor(std::vector<int64_t> ne, uint32_t type, uint64_t offset = 0) {
  ByteString bytes = Header(3, 1, 0);
  Tensor(bytes, "tensor", std::move(ne), type, offset).PadTo(32);
  return bytes.AddRaw(std::string(256, '\0'));
}

ByteString Alignment(GgufType type, uint64_t value) {
  ByteString bytes = Header(3, 0, 1);
  Key(bytes, "general.alignment", type);
  if (type == GgufType::kU64) return bytes.Add(value);
  return bytes.Add(static_cast<uint32_t>(value));
}

ByteString Cut(size_t bytes_left_out) {
  ByteString cut;
  const std::string whole = Valid().bytes();
  cut.AddRaw(absl::string_view(whole).substr(0, whole.size() - bytes_left_out));
  return cut;
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kLoss = absl::StatusCode::kDataLoss;
constexpr int64_t kBig = int64_t{1} << 62;

const Damaged kDamaged[] = {
    {"Empty", [] { return ByteString(); }, kInvalid, "not a GGUF file"},
    {"ShortMagic", [] { return ByteString().AddRaw("GGU"); }, kInvalid, "not a GGUF file"},
    {"OtherMagic", [] { return ByteString().AddRaw("GGMLxxxxxxxxxxxxxxxxxxxx"); }, kInvalid,
     "expected 'GGUF', got 'GGML'"},
    {"NoVersion", [] { return ByteString().AddRaw("GGUF"); }, kLoss, "the version"},
    {"Version0", [] { return Header(0, 0, 0); }, kInvalid, "GGUF version 0"},
    {"Version1", [] { return Header(1, 0, 0); }, kInvalid, "GGUF version 1"},
    {"Version4", [] { return Header(4, 0, 0); }, kInvalid, "GGUF version 4"},
    {"BigEndian", [] { return Header(0x03000000, 0, 0); }, kInvalid, "big-endian"},
    {"NoCounts", [] { return ByteString().AddRaw("GGUF").Add(3); }, kLoss, "the tensor count"},
    {"TensorCountTooLarge", [] { return Header(3, ~uint64_t{0}, 0); }, kLoss,
     "18446744073709551615 tensors"},
    {"KeyCountTooLarge", [] { return Header(3, 0, uint64_t{1} << 40); }, kLoss,
     "1099511627776 keys"},
    {"NegativeKeyCount", [] { return Header(3, 0, ~uint64_t{0}); }, kLoss, "keys"},
    {"KeyNameTooLong",
     [] { return Header(3, 0, 1).Add(uint64_t{1} << 60).AddRaw(std::string(64, 'x')); }, kLoss,
     "claims 1152921504606846976 bytes"},
    {"KeyNameEmpty",
     [] { return Header(3, 0, 1).AddString("").Add(int32_t{4}).Add(uint32_t{1}).PadTo(64); },
     kLoss, "has no name"},
    {"KeyTwice",
     [] {
       ByteString bytes = Header(3, 0, 2);
       Key(bytes, "key", GgufType::kU32).Add<uint32_t>(1);
       return Key(bytes, "key", GgufType::kU32).Add<uint32_t>(2);
     },
     kLoss, "'key' is there twice"},
    {"KeyTypeUnknown", [] { return OneKey(static_cast<GgufType>(13)).PadTo(64); }, kLoss,
     "unknown type 13"},
    {"KeyTypeNegative", [] { return OneKey(static_cast<GgufType>(-1)).PadTo(64); }, kLoss,
     "unknown type -1"},
    {"ValueCut", [] { return OneKey(GgufType::kU64).Add<uint32_t>(0); }, kLoss, "the file ends"},
    {"BoolOfTwo", [] { return OneKey(GgufType::kBool).Add<uint8_t>(2); }, kLoss, "has value 2"},
    {"StringTooLong", [] { return OneKey(GgufType::kString).Add(uint64_t{1} << 63); }, kLoss,
     "claims"},
    {"ArrayTooLong",
     [] { return OneKey(GgufType::kArray).Add(int32_t{4}).Add(uint64_t{1} << 62); }, kLoss,
     "elements"},
    {"ArrayLengthOverflows",
     [] { return OneKey(GgufType::kArray).Add(int32_t{10}).Add(~uint64_t{0}); }, kLoss,
     "elements"},
    {"ArrayOfStringsTooLong",
     [] { return OneKey(GgufType::kArray).Add(int32_t{8}).Add(uint64_t{1} << 30).PadTo(128); },
     kLoss, "elements"},
    {"ArrayNested",
     [] { return OneKey(GgufType::kArray).Add(int32_t{9}).Add(uint64_t{1}).PadTo(128); }, kLoss,
     "nests arrays"},
    {"ArrayTypeUnknown",
     [] { return OneKey(GgufType::kArray).Add(int32_t{77}).Add(uint64_t{1}).PadTo(128); }, kLoss,
     "unknown type 77"},
    {"AlignmentZero", [] { return Alignment(GgufType::kU32, 0); }, kLoss, "power of two"},
    {"AlignmentOdd", [] { return Alignment(GgufType::kU32, 24); }, kLoss, "power of two"},
    {"AlignmentHuge", [] { return Alignment(GgufType::kU32, 1 << 30); }, kLoss, "power of two"},
    {"AlignmentOfAnotherType", [] { return Alignment(GgufType::kU64, 32); }, kLoss,
     "should be u32"},
    {"TensorNameEmpty",
     [] {
       ByteString bytes = Header(3, 1, 0);
       return Tensor(bytes, "", {1}, 0, 0).PadTo(128);
     },
     kLoss, "has 0 bytes"},
    {"TensorNameTooLong",
     [] {
       ByteString bytes = Header(3, 1, 0);
       return Tensor(bytes, std::string(64, 'n'), {1}, 0, 0).PadTo(256);
     },
     kLoss, "has 64 bytes"},
    {"TensorTwice",
     [] {
       ByteString bytes = Header(3, 2, 0);
       Tensor(bytes, "t", {8}, 0, 0);
       return Tensor(bytes, "t", {8}, 0, 32).PadTo(32).AddRaw(std::string(64, '\0'));
     },
     kLoss, "'t' is there twice"},
    {"NoDimensions", [] { return OneTensor({}, 0); }, kLoss, "0 dimensions"},
    {"FiveDimensions", [] { return OneTensor({1, 1, 1, 1, 1}, 0); }, kLoss, "5 dimensions"},
    {"DimensionCountHuge",
     [] {
       return Header(3, 1, 0).AddString("t").Add(~uint32_t{0}).PadTo(128);
     },
     kLoss, "4294967295 dimensions"},
    {"DimensionZero", [] { return OneTensor({4, 0}, 0); }, kLoss, "dimension 1 is 0"},
    {"DimensionNegative", [] { return OneTensor({-4}, 0); }, kLoss, "dimension 0 is -4"},
    {"ProductWrapsToZero", [] { return OneTensor({int64_t{1} << 32, int64_t{1} << 32}, 0); },
     kLoss, "too large"},
    {"ProductOverflows", [] { return OneTensor({kBig, 4, 4}, 24); }, kLoss, "too large"},
    {"BytesOverflow", [] { return OneTensor({kBig}, 0); }, kLoss, "too large"},
    {"TypeRemoved", [] { return OneTensor({32}, 36); }, kInvalid, "was removed"},
    {"TypeUnknown", [] { return OneTensor({32}, 4096); }, kInvalid, "is unknown"},
    {"PartBlocks", [] { return OneTensor({33}, 8); }, kLoss, "not a whole number of q8_0"},
    {"OffsetNotTheNext", [] { return OneTensor({4}, 0, 32); }, kLoss, "should start at 0"},
    {"SecondOverlapsFirst",
     [] {
       ByteString bytes = Header(3, 2, 0);
       Tensor(bytes, "a", {16}, 0, 0);
       return Tensor(bytes, "b", {16}, 0, 32).PadTo(32).AddRaw(std::string(128, '\0'));
     },
     kLoss, "should start at 64"},
    {"EndsPast2To64",
     [] {
       ByteString bytes = Header(3, 3, 0);
       const int64_t half = std::numeric_limits<int64_t>::max() - 31;
       Tensor(bytes, "a", {half}, 24, 0);
       Tensor(bytes, "b", {half}, 24, static_cast<uint64_t>(half));
       return Tensor(bytes, "c", {half}, 24, 2 * static_cast<uint64_t>(half)).PadTo(32);
     },
     kLoss, "2^64"},
    {"DataCut", [] { return Cut(1); }, kLoss, "tensor 'b' takes 16 bytes"},
    {"DataMissing", [] { return Cut(30); }, kLoss, "tensor 'b'"},
    {"TensorLargerThanFile", [] { return OneTensor({1 << 20}, 0); }, kLoss, "takes 4194304 bytes"},
};

class DamagedGgufTest : public testing::TestWithParam<Damaged> {};

TEST_P(DamagedGgufTest, IsRefusedByName) {
  const auto reader = Open(GetParam().make());
  EXPECT_EQ(reader.status().code(), GetParam().code) << reader.status();
  EXPECT_THAT(std::string(reader.status().message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(reader.status().message()), HasSubstr("bytes"));  // the file's name
}

INSTANTIATE_TEST_SUITE_P(All, DamagedGgufTest, testing::ValuesIn(kDamaged),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(GgufReaderTest, RefusesEveryFileCutShort) {
  const std::string whole = Valid().bytes();
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(GgufReader::Open(BytesFile(whole.substr(0, length))).ok()) << length;
  }
}

TEST(GgufReaderTest, SurvivesEveryByteOfTheHeaderChanged) {
  const std::string whole = Valid().bytes();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int change : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      const auto reader = GgufReader::Open(BytesFile(bytes));
      if (!reader.ok()) continue;
      for (const GgufTensor& tensor : (*reader)->tensors()) {
        std::vector<std::byte> data(tensor.bytes);
        EXPECT_EQ((*reader)->ReadTensor(tensor, 0, absl::MakeSpan(data)), absl::OkStatus());
      }
    }
  }
}

TEST(GgufReaderTest, AcceptsPaddingAtTheEndAndFilesWithoutTensors) {
  EXPECT_TRUE(Open(Valid().PadTo(32)).ok());
  EXPECT_TRUE(Open(Header(3, 0, 0)).ok());
}

}  // namespace
}  // namespace odmoe
