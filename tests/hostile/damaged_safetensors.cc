#include "tests/core/formats/bytes_file.h"
#include "tests/hostile/damaged_files.h"
#include "tests/support/status_codes.h"

namespace odmoe {
namespace {

// A header and data of ones.
std::string File(absl::string_view header, size_t data_bytes) {
  ByteString bytes;
  bytes.Add<uint64_t>(header.size()).AddRaw(header).AddRaw(std::string(data_bytes, '\1'));
  return bytes.bytes();
}

// A header of one tensor "t".
std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_bytes) {
  return File("{\"t\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" +
                  offsets + "}}",
              data_bytes);
}

}  // namespace

std::vector<DamagedFile> DamagedSafetensors() {
  const std::vector<DamagedFile> kCases = {
      {"Empty", "", kInvalid, "it is empty"},
      {"OnlyALength", std::string(8, '\0'), kInvalid, "it has 8 bytes"},
      {"LengthBeyondTheFormat", ByteString().Add<uint64_t>(100000001).AddRaw("{}").bytes(),
       kInvalid, "header length of 100000001"},
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
      {"ShapeOverflows", One("\"F32\"", "[4294967296,4294967296]", "[0,0]", 0), kLoss, "too large"},
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
      {"Deep", File(std::string(2000, '{').replace(1, 0, "\"a\":"), 0), kInvalid, "JSON"},
      {"DeepArrays", File("{\"t\":" + std::string(2000, '[') + std::string(2000, ']') + "}", 0),
       kInvalid, "levels"},
      {"NotUtf8", File("{\"\xff\xfe\":{}}", 0), kInvalid, "not valid JSON"},
      {"NameTwiceByEscapes",
       File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
            1),
       kInvalid, "'a' is there twice"},
      {"DimensionOf2To64", One("\"U8\"", "[18446744073709551616]", "[0,1]", 1), kLoss, "'shape'"},
      {"ProductWrapsToZero", One("\"U8\"", "[4294967296,4294967296]", "[0,0]", 0), kLoss,
       "too large"},
      {"OffsetsOfMinusOne", One("\"U8\"", "[1]", "[18446744073709551615,0]", 1), kLoss,
       "do not lie in the 1 bytes"},
      {"MetadataNested", File(R"({"__metadata__":{"k":{"k":"v"}}})", 0), kLoss,
       "should be a string"},
      {"MetadataAnArray", File(R"({"__metadata__":["k"]})", 0), kLoss, "should be an object"},
      {"GgufUnderThisName", ByteString().AddRaw("GGUF").Add(3).Add<uint64_t>(0).bytes(), kInvalid,
       "it looks like a GGUF file"},
      {"ZipUnderThisName", "PK\x03\x04 archive/data.pkl", kInvalid, "pickles can run code"},
      {"LfsPointerUnderThisName", "version https://git-lfs.github.com/spec/v1\n", kInvalid,
       "git lfs pull"},
  };
  return kCases;
}

}  // namespace odmoe
