// A BitNet checkpoint's way through the programs: looked at, converted, validated, served.
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/bitnet_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class BitnetProgramsTest : public testing::Test {
 protected:
  void SetUp() override { WriteBitnetCheckpoint({}, checkpoint_); }

  const TemporaryDirectory directory_;
  const std::string checkpoint_ = directory_ / "checkpoint";
};

TEST_F(BitnetProgramsTest, TellsWhatACheckpointHolds) {
  const nlohmann::json report = OdmoeJson({"bitnet", "inspect", checkpoint_, "--json"});
  EXPECT_EQ(report["architecture"], "bitnet-b1.58");
  ASSERT_EQ(report["tensors"].size(), 14u);
  for (const nlohmann::json& tensor : report["tensors"]) {
    EXPECT_EQ(tensor["stored"], "packed");
    EXPECT_NEAR(
        tensor["minus"].get<double>() + tensor["zero"].get<double>() + tensor["plus"].get<double>(),
        1.0, 1e-9);
  }
  EXPECT_THAT(Odmoe({"bitnet", "inspect", TinyKimiCheckpoint()}).err,
              HasSubstr("no ternary weights"));
}

TEST_F(BitnetProgramsTest, ConvertsAndValidates) {
  for (const std::string outtype : {"tq2_0", "i2_s"}) {
    const std::string gguf = directory_ / (outtype + ".gguf");
    const nlohmann::json result = OdmoeJson({"bitnet", "convert", checkpoint_, "-o", gguf,
                                             "--outtype", outtype, "--validate", "--json"});
    EXPECT_LT(result["bytes"], std::filesystem::file_size(gguf));  // of weights
    EXPECT_EQ(result["validated_weights"], 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256));
    EXPECT_FALSE(std::filesystem::exists(gguf + ".validation"));
  }
  EXPECT_THAT(
      Odmoe({"convert", TinyKimiCheckpoint(), "-o", directory_ / "k.gguf", "--outtype", "tq2_0"})
          .err,
      AllOf(HasSubstr("is not ternary"), HasSubstr("--force-ternary")));
}

TEST_F(BitnetProgramsTest, WritesKernelsAndWeightsForThem) {
  const std::string config = checkpoint_ + "/config.json";
  const nlohmann::json kernels = OdmoeJson(
      {"bitnet", "kernels", "--config", config, "--kind", "tl1", "-o", directory_ / "k", "--json"});
  EXPECT_THAT(ReadFileOrDie(directory_ / "k/bitnet-lut-kernels.h"),
              HasSubstr(kernels["kernels"].get<std::string>()));
  const nlohmann::json result =
      OdmoeJson({"bitnet", "convert", checkpoint_, "-o", directory_ / "tl1.gguf", "--outtype",
                 "tl1", "--kernels", directory_ / "k/kernel_config.ini", "--validate", "--json"});
  EXPECT_EQ(result["generated"], "");  // only BitNet's runtime has the kernels
  EXPECT_EQ(Odmoe({"verify", directory_ / "tl1.gguf"}).exit.code, 0);
  EXPECT_THAT(Odmoe({"bitnet", "kernels", "--config", config, "-o", directory_ / "k2"}).err,
              HasSubstr("cannot be tiled for tl2: it needs more than 256 columns"));
}

// A dense model needs no store: neither in this process nor in a service.
TEST_F(BitnetProgramsTest, AnswersInOneProcessAndInAService) {
  const std::string model = directory_ / "model";
  ASSERT_EQ(Odmoe({"convert", checkpoint_, "-o", model, "--outtype", "i2_s"}).exit.code, 0);
  const std::vector<std::string> ask = {"generate", model, "-p", "The", "-n", "8", "--temp", "0"};
  const ProcessOutput here = Odmoe(ask);
  EXPECT_EQ(here.exit.code, 0) << here.err;
  const Service inference =
      StartService("odmoe-inference", {"--root", directory_.path(), "--model", model});
  std::vector<std::string> there = ask;
  there.insert(there.end(), {"--endpoint", inference.endpoint});
  const ProcessOutput answer = Odmoe(there);
  EXPECT_EQ(answer.exit.code, 0) << answer.err;
  EXPECT_EQ(answer.out, here.out);
  EXPECT_EQ(Odmoe({"verify", model}).exit.code, 0);
}

}  // namespace
}  // namespace odmoe
