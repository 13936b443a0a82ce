#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/core/formats/gguf_bytes.h"
#include "tests/hostile/damaged_files.h"
#include "tests/support/status_codes.h"

namespace odmoe {
namespace {

struct Case {
  const char* name;
  std::function<ByteString()> make;
  absl::StatusCode code;
  const char* message;
};

ByteString OneKey(GgufType type) {
  ByteString bytes = GgufHeaderBytes(3, 0, 1);
  GgufKey(bytes, "key", type);
  return bytes;
}

ByteString OneTensor(std::vector<int64_t> ne, uint32_t type, uint64_t offset = 0) {
  ByteString bytes = GgufHeaderBytes(3, 1, 0);
  GgufTensorInfo(bytes, "tensor", std::move(ne), type, offset).PadTo(32);
  return bytes.AddRaw(std::string(256, '\0'));
}

ByteString Alignment(GgufType type, uint64_t value) {
  ByteString bytes = GgufHeaderBytes(3, 0, 1);
  GgufKey(bytes, "general.alignment", type);
  if (type == GgufType::kU64) return bytes.Add(value);
  return bytes.Add(static_cast<uint32_t>(value));
}

ByteString Cut(size_t bytes_left_out) {
  ByteString cut;
  const std::string whole = ValidGguf().bytes();
  cut.AddRaw(absl::string_view(whole).substr(0, whole.size() - bytes_left_out));
  return cut;
}

constexpr int64_t kBig = int64_t{1} << 62;

const Case kCases[] = {
    {"Empty", [] { return ByteString(); }, kInvalid, "it is empty"},
    {"ShortMagic", [] { return ByteString().AddRaw("GGU"); }, kInvalid, "not a GGUF file"},
    {"OtherMagic", [] { return ByteString().AddRaw("GGMLxxxxxxxxxxxxxxxxxxxx"); }, kInvalid,
     "expected 'GGUF', got 'GGML'"},
    {"NoVersion", [] { return ByteString().AddRaw("GGUF"); }, kLoss, "the version"},
    {"Version0", [] { return GgufHeaderBytes(0, 0, 0); }, kInvalid, "GGUF version 0"},
    {"Version1", [] { return GgufHeaderBytes(1, 0, 0); }, kInvalid, "GGUF version 1"},
    {"Version4", [] { return GgufHeaderBytes(4, 0, 0); }, kInvalid, "GGUF version 4"},
    {"BigEndian", [] { return GgufHeaderBytes(0x03000000, 0, 0); }, kInvalid, "big-endian"},
    {"NoCounts", [] { return ByteString().AddRaw("GGUF").Add(3); }, kLoss, "the tensor count"},
    {"TensorCountTooLarge", [] { return GgufHeaderBytes(3, ~uint64_t{0}, 0); }, kLoss,
     "18446744073709551615 tensors"},
    {"KeyCountTooLarge", [] { return GgufHeaderBytes(3, 0, uint64_t{1} << 40); }, kLoss,
     "1099511627776 keys"},
    {"NegativeKeyCount", [] { return GgufHeaderBytes(3, 0, ~uint64_t{0}); }, kLoss, "keys"},
    {"KeyNameTooLong",
     [] { return GgufHeaderBytes(3, 0, 1).Add(uint64_t{1} << 60).AddRaw(std::string(64, 'x')); },
     kLoss, "claims 1152921504606846976 bytes"},
    {"KeyNameEmpty",
     [] {
       return GgufHeaderBytes(3, 0, 1).AddString("").Add(int32_t{4}).Add(uint32_t{1}).PadTo(64);
     },
     kLoss, "has no name"},
    {"KeyTwice",
     [] {
       ByteString bytes = GgufHeaderBytes(3, 0, 2);
       GgufKey(bytes, "key", GgufType::kU32).Add<uint32_t>(1);
       return GgufKey(bytes, "key", GgufType::kU32).Add<uint32_t>(2);
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
    {"ArrayTooLong", [] { return OneKey(GgufType::kArray).Add(int32_t{4}).Add(uint64_t{1} << 62); },
     kLoss, "elements"},
    {"ArrayLengthOverflows",
     [] { return OneKey(GgufType::kArray).Add(int32_t{10}).Add(~uint64_t{0}); }, kLoss, "elements"},
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
       ByteString bytes = GgufHeaderBytes(3, 1, 0);
       return GgufTensorInfo(bytes, "", {1}, 0, 0).PadTo(128);
     },
     kLoss, "has 0 bytes"},
    {"TensorNameTooLong",
     [] {
       ByteString bytes = GgufHeaderBytes(3, 1, 0);
       return GgufTensorInfo(bytes, std::string(64, 'n'), {1}, 0, 0).PadTo(256);
     },
     kLoss, "has 64 bytes"},
    {"TensorTwice",
     [] {
       ByteString bytes = GgufHeaderBytes(3, 2, 0);
       GgufTensorInfo(bytes, "t", {8}, 0, 0);
       return GgufTensorInfo(bytes, "t", {8}, 0, 32).PadTo(32).AddRaw(std::string(64, '\0'));
     },
     kLoss, "'t' is there twice"},
    {"NoDimensions", [] { return OneTensor({}, 0); }, kLoss, "0 dimensions"},
    {"FiveDimensions",
     [] {
       return OneTensor({1, 1, 1, 1, 1}, 0);
     },
     kLoss, "5 dimensions"},
    {"DimensionCountHuge",
     [] { return GgufHeaderBytes(3, 1, 0).AddString("t").Add(~uint32_t{0}).PadTo(128); }, kLoss,
     "4294967295 dimensions"},
    {"DimensionZero",
     [] {
       return OneTensor({4, 0}, 0);
     },
     kLoss, "dimension 1 is 0"},
    {"DimensionNegative", [] { return OneTensor({-4}, 0); }, kLoss, "dimension 0 is -4"},
    {"ProductWrapsToZero",
     [] {
       return OneTensor({int64_t{1} << 32, int64_t{1} << 32}, 0);
     },
     kLoss, "too large"},
    {"ProductOverflows",
     [] {
       return OneTensor({kBig, 4, 4}, 24);
     },
     kLoss, "too large"},
    {"BytesOverflow", [] { return OneTensor({kBig}, 0); }, kLoss, "too large"},
    {"TypeUnknown", [] { return OneTensor({32}, 4096); }, kInvalid, "is unknown"},
    {"PartBlocks", [] { return OneTensor({33}, 8); }, kLoss, "not a whole number of q8_0"},
    {"OffsetNotTheNext", [] { return OneTensor({4}, 0, 32); }, kLoss, "should start at 0"},
    {"SecondOverlapsFirst",
     [] {
       ByteString bytes = GgufHeaderBytes(3, 2, 0);
       GgufTensorInfo(bytes, "a", {16}, 0, 0);
       return GgufTensorInfo(bytes, "b", {16}, 0, 32).PadTo(32).AddRaw(std::string(128, '\0'));
     },
     kLoss, "should start at 64"},
    {"EndsPast2To64",
     [] {
       ByteString bytes = GgufHeaderBytes(3, 3, 0);
       const int64_t half = std::numeric_limits<int64_t>::max() - 31;
       GgufTensorInfo(bytes, "a", {half}, 24, 0);
       GgufTensorInfo(bytes, "b", {half}, 24, static_cast<uint64_t>(half));
       return GgufTensorInfo(bytes, "c", {half}, 24, 2 * static_cast<uint64_t>(half)).PadTo(32);
     },
     kLoss, "2^64"},
    {"DataCut", [] { return Cut(1); }, kLoss, "tensor 'b' takes 16 bytes"},
    {"DataMissing", [] { return Cut(30); }, kLoss, "tensor 'b'"},
    {"TensorLargerThanFile", [] { return OneTensor({1 << 20}, 0); }, kLoss, "takes 4194304 bytes"},
    {"NineDimensions", [] { return OneTensor(std::vector<int64_t>(9, 1), 0); }, kLoss,
     "9 dimensions"},
    {"TokenOf4GiB",
     [] {
       return OneKey(GgufType::kArray)
           .Add(int32_t{8})
           .Add(uint64_t{1})
           .Add((uint64_t{1} << 32) + 1)
           .AddRaw("x");
     },
     kLoss, "claims 4294967297 bytes"},
    {"ArraysNestedDeep",
     [] {
       ByteString bytes = OneKey(GgufType::kArray);
       for (int i = 0; i < 64; ++i) bytes.Add(int32_t{9}).Add(uint64_t{1});
       return bytes;
     },
     kLoss, "nests arrays"},
    {"OffsetBeyondTheFile", [] { return OneTensor({4}, 0, uint64_t{1} << 63); }, kLoss,
     "should start at 0"},
    {"ElementsWrapInTheProductOfThree",
     [] {
       return OneTensor({int64_t{1} << 22, int64_t{1} << 21, int64_t{1} << 21}, 0);
     },
     kLoss, "too large"},
    {"SafetensorsUnderThisName", [] { return ByteString().Add<uint64_t>(2).AddRaw("{}        "); },
     kInvalid, "it looks like a safetensors file"},
    {"ZipUnderThisName", [] { return ByteString().AddRaw("PK\x03\x04 archive/data.pkl"); },
     kInvalid, "zip archive, such as a PyTorch checkpoint"},
    {"PickleUnderThisName", [] { return ByteString().AddRaw("\x80\x02}q. some pickle"); }, kInvalid,
     "Python pickle"},
    {"HtmlUnderThisName",
     [] { return ByteString().AddRaw("\n<!DOCTYPE html><html>Sign in</html>"); }, kInvalid,
     "HTML page"},
    {"LfsPointerUnderThisName",
     [] {
       return ByteString().AddRaw(
           "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
     },
     kInvalid, "git lfs pull"},
    {"GgmlUnderThisName", [] { return ByteString().AddRaw("lmgg and more of it"); }, kInvalid,
     "before GGUF"},
    {"JsonUnderThisName", [] { return ByteString().AddRaw("{\"error\": 404}"); }, kInvalid,
     "a JSON file"},
    {"ZerosUnderThisName", [] { return ByteString().AddRaw(std::string(64, '\0')); }, kInvalid,
     "begins with zeros"},
};

}  // namespace

std::vector<DamagedFile> DamagedGgufs() {
  std::vector<DamagedFile> files;
  for (const Case& c : kCases) files.push_back({c.name, c.make().bytes(), c.code, c.message});
  for (uint32_t id : {4, 5, 31, 32, 33, 36, 37, 38}) {
    files.push_back({absl::StrCat("TypeRemoved", id), OneTensor({256}, id).bytes(), kInvalid,
                     "was removed from ggml"});
  }
  return files;
}

}  // namespace odmoe
