#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/core/formats/small_model_index.h"
#include "tests/hostile/damaged_files.h"
#include "tests/support/status_codes.h"

namespace odmoe {
namespace {

// A good text with some of it replaced.
struct Edit {
  const char* name;
  std::vector<std::pair<std::string, std::string>> replacements;
  const char* message;
};

const Edit kRegistryEdits[] = {
    {"AnotherFormat", {{"\"odmoe-model\"", "\"other\""}}, "'format' should be 'odmoe-model'"},
    {"LaterVersion", {{"\"version\":1", "\"version\":2"}}, "'version'"},
    {"CountDiffers", {{"\"expert_count\":3", "\"expert_count\":4"}}, "expert_count is 4"},
    {"KeyAndIdsDiffer", {{"\"layer_07_expert_000\"", "\"layer_08_expert_000\""}}, "belong under"},
    {"PathLeadsUp", {{"experts/layer_07", "experts/../../layer_07"}}, "inside the model directory"},
    {"PathIsAbsolute", {{"experts/layer_07", "/etc/layer_07"}}, "inside the model directory"},
    {"ExpertMissing",
     {{"layer_01_expert_000", "layer_01_expert_005"},
      {"\"layer\":1,\"expert_id\":0", "\"layer\":1,\"expert_id\":5"}},
     "layer_01_expert_000 is missing"},
    {"NegativeLayer", {{"\"layer\":7", "\"layer\":-7"}}, "'layer'"},
    {"HugeExpert", {{"\"expert_id\":1,", "\"expert_id\":99999999999,"}}, "'expert_id'"},
    {"DataOffsetOdd", {{"\"data_offset\":4096", "\"data_offset\":4095"}}, "boundary"},
    {"DataBeyondTheFile", {{"\"data_offset\":4096", "\"data_offset\":8192"}}, "do not fit"},
    {"SizeHuge", {{"\"data_offset\":4096", "\"data_offset\":18446744073709547520"}}, "do not fit"},
    {"ShapesDoNotFit", {{"\"shape\":[32,64]", "\"shape\":[32,96]"}}, "back to back"},
    {"GapBetweenMatrices", {{"\"offset\":4096", "\"offset\":4100"}}, "back to back"},
    {"NoWeights", {{"\"w3.weight\"", "\"w4.weight\""}}, "w3.weight"},
    {"UnknownFormat", {{"\"q8_0\"", "\"q8_9\""}}, "'dtype'"},
    {"HashNotHex", {{"fedcba9876543210", "gedcba9876543210"}}, "16 hex digits"},
};

const Edit kMetadataEdits[] = {
    {"FileLeadsUp", {{"lm_head.safe", "../lm_head.safe"}}, "'file' should be a file name"},
    {"FileIsAbsolute", {{"lm_head.safe", "/etc/lm_head.safe"}}, "'file' should be a file name"},
    {"FileIsTheParent", {{"lm_head.safetensors", ".."}}, "'file' should be a file name"},
    {"FileEmpty", {{"lm_head.safetensors", ""}}, "'file' should be a file name"},
    {"ShapeOverflows", {{"[3,64]", "[9223372036854775807,64]"}}, "too large"},
    {"ShapeWrapsToZero", {{"[3,64]", "[4294967296,4294967296]"}}, "too large"},
    {"ShapeZero", {{"[3,64]", "[0,64]"}}, "is 0"},
    {"ShapeNegative", {{"[3,64]", "[-3,64]"}}, "'shape'"},
    {"FiveDimensions", {{"[3,64]", "[1,1,1,3,64]"}}, "1 to 4 dimensions"},
    {"TensorTwice", {{"\"output.weight\"", "\"blk.1.ffn_up_exps.weight\""}}, "is there twice"},
    {"TypeRemoved", {{"\"f16\"", "\"q4_0_4_4\""}}, "'dtype'"},
    {"PartBlocks", {{"[2,32,64]", "[2,32,63]"}}, "whole number of q8_0 blocks"},
    {"PartUnknown", {{"w3.weight", "w4.weight"}}, "'parts'"},
    {"PartsEmpty", {{"[\"w3.weight\"]", "[]"}}, "'parts'"},
    {"PartsNotStrings", {{"[\"w3.weight\"]", "[3]"}}, "'parts'"},
    {"ExpertNegative", {{"[\"w3.weight\"]", "[\"w3.weight\"],\"expert\":-1"}}, "'expert'"},
    {"LayerHuge",
     {{"\"experts_of_layer\":1", "\"experts_of_layer\":2147483648"}},
     "'experts_of_layer'"},
    {"Version1", {{"\"version\":2,\"alignment\"", "\"version\":1,\"alignment\""}}, "'version'"},
    {"AlignmentHuge", {{"\"alignment\":64", "\"alignment\":1073741824"}}, "'alignment'"},
    {"PaddingOutside",
     {{"\"bytes\":12345", "\"bytes\":12345,\"padding\":[{\"offset\":12345,\"hex\":\"01\"}]"}},
     "inside the file"},
    {"PaddingOverlaps",
     {{"\"bytes\":12345",
       "\"bytes\":12345,\"padding\":[{\"offset\":8,\"hex\":\"0102\"},{\"offset\":9,\"hex\":\"01\"}"
       "]"}},
     "behind the one before"},
    {"PaddingNotHex",
     {{"\"bytes\":12345", "\"bytes\":12345,\"padding\":[{\"offset\":8,\"hex\":\"0g\"}]"}},
     "pairs of hex digits"},
    {"KeyTwice",
     {{"[\n {\"key\"",
       "[\n {\"key\":\"general.architecture\",\"type\":\"u32\",\"value\":1},\n {\"key\""}},
     "there twice"},
    {"KeyTypeUnknown", {{"\"type\":\"string\"", "\"type\":\"u128\""}}, "'type'"},
    {"KeyTypeArray", {{"\"type\":\"string\"", "\"type\":\"array\""}}, "'type'"},
    {"DigestLeadsOut", {{"\"abc\"", "\"../abc\""}}, "a hex digest"},
};

// Not JSON at all, or too much of it.
std::vector<DamagedFile> NotJson(const std::string& good) {
  return {{"Empty", "", kInvalid, "JSON"},
          {"Cut", good.substr(0, good.size() / 2), kInvalid, "JSON"},
          {"NotUtf8", "{\"\xc0\x80\":1}", kInvalid, "JSON"},
          {"Deep", std::string(1000, '['), kInvalid, "levels"},
          {"KeyTwiceInTheObject", "{\"format\":1,\"format\":2}", kInvalid, "there twice"},
          {"AnArray", "[]", kLoss, "should be an object"},
          {"Nothing", "null", kLoss, "should be an object"}};
}

template <size_t N>
std::vector<DamagedFile> Damaged(const std::string& good, const Edit (&edits)[N]) {
  std::vector<DamagedFile> files = NotJson(good);
  for (const Edit& edit : edits) {
    std::vector<std::pair<absl::string_view, absl::string_view>> pairs;
    for (const auto& [from, to] : edit.replacements) pairs.emplace_back(from, to);
    files.push_back({edit.name, absl::StrReplaceAll(good, pairs), kLoss, edit.message});
  }
  return files;
}

}  // namespace

std::vector<DamagedFile> DamagedRegistries() { return Damaged(SmallRegistry(), kRegistryEdits); }

std::vector<DamagedFile> DamagedMetadata() {
  return Damaged(EncodeModelIndex(SmallIndex()).value(), kMetadataEdits);
}

}  // namespace odmoe
