// Every mix on every kind of model, against the file that the reference quantizer makes of it; see
// tests/data/quantize/README.md.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "converter/quantize/quantize.h"
#include "services/core/formats/gguf_model.h"
#include "tests/converter/quantize/made_model.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

const nlohmann::json& Fixture() {
  static const nlohmann::json* fixture = new nlohmann::json(
      nlohmann::json::parse(ReadFileOrDie(ODMOE_TEST_DATA "/quantize/made.json")));
  return *fixture;
}

std::string HashOfFile(const std::string& path) {
  const std::string bytes = ReadFileOrDie(path);
  return absl::StrFormat("%016x", XXH3_64bits(bytes.data(), bytes.size()));
}

// A letter a tensor, as the fixture has them.
std::string Formats(const QuantizedModel& model) {
  std::string letters;
  for (const PlannedTensor& tensor : model.tensors) {
    letters += Fixture()["formats"][tensor.format].get<std::string>();
  }
  return letters;
}

QuantizeOptions OptionsOf(const nlohmann::json& row) {
  const nlohmann::json& options = row["options"];
  QuantizeOptions quantize{
      .source = "source.gguf", .destination = "out.gguf", .types = {row["type"]}};
  MixOptions& tensors = quantize.tensors;
  tensors.force_ternary = true;  // as the reference does
  tensors.pure = options.value("pure", false);
  tensors.leave_output_tensor = options.value("leave_output_tensor", false);
  tensors.allow_requantize = options.value("allow_requantize", false);
  tensors.output_tensor_type = options.value("output_tensor_type", "");
  tensors.token_embedding_type = options.value("token_embedding_type", "");
  tensors.tensor_types = options.value("tensor_types", std::vector<std::string>());
  if (options.value("importance", false)) quantize.importance = "importance.gguf";
  return quantize;
}

class ReferenceMixesTest : public testing::TestWithParam<std::string> {};

TEST_P(ReferenceMixesTest, GivesTheReferencesFile) {
  TemporaryDirectory folder;
  // The importance matrix's path is a key of the output.
  std::filesystem::current_path(folder.path());
  WriteFileOrDie("source.gguf", MakeModel(GetParam()));
  WriteFileOrDie("importance.gguf", MakeImportance(GetParam()));
  int cases = 0;
  for (const nlohmann::json& row : Fixture()["cases"]) {
    if (row["model"] != GetParam()) continue;
    SCOPED_TRACE(absl::StrCat(row["type"].dump(), row["options"].dump()));
    ++cases;
    const auto plan = PlanQuantization(OptionsOf(row));
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(Formats(plan->models[0]), row["formats"]);
    ASSERT_EQ(RunQuantization(*plan, nullptr, nullptr), absl::OkStatus());
    EXPECT_EQ(HashOfFile("out.gguf"), row["xxh3"]);
  }
  EXPECT_GT(cases, 1);
  std::filesystem::current_path(std::filesystem::temp_directory_path());
}

INSTANTIATE_TEST_SUITE_P(Models, ReferenceMixesTest, testing::ValuesIn(MadeModelNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace odmoe
