// A conversion as a job of the service, from submit to result, and across the service's death.
#include <signal.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class ConversionJobTest : public ::testing::Test {
 protected:
  void StartConversion() {
    service_ = StartService("odmoe-conversion",
                            {"--listen", absl::StrCat("unix:", directory_ / "service.sock"),
                             "--database", directory_ / "jobs.db", "--root", directory_.path(),
                             "--root", TinyKimiCheckpoint()});
  }
  nlohmann::json Submit(const std::string& destination) {
    return OdmoeJson({"jobs", "submit", TinyKimiCheckpoint(), "-o", destination, "--outtype", "f32",
                      "--endpoint", service_.endpoint, "--json"});
  }
  void ExpectSameAsLocalConversion(const std::string& model) {
    size_t experts = 0;
    for (const auto& entry : std::filesystem::directory_iterator(TinyKimi() + "/experts")) {
      const std::string name = entry.path().filename();
      EXPECT_EQ(ReadFileOrDie(entry.path()), ReadFileOrDie(model + "/experts/" + name)) << name;
      ++experts;
    }
    EXPECT_EQ(experts, 5u * 16u + 1u);
  }

  const TemporaryDirectory directory_;
  Service service_;
};

TEST_F(ConversionJobTest, IsSubmittedWatchedAndListed) {
  StartConversion();
  const std::string model = directory_ / "model";
  nlohmann::json job = Submit(model);
  ASSERT_TRUE(job["id"].is_string()) << job;
  const ProcessOutput watch = Odmoe({"jobs", "watch", job["id"], "--endpoint", service_.endpoint});
  EXPECT_EQ(watch.exit.code, 0) << watch.err;
  EXPECT_THAT(watch.out, ::testing::HasSubstr("succeeded"));
  nlohmann::json list =
      OdmoeJson({"jobs", "list", "--endpoint", service_.endpoint, "--json"})["jobs"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["id"], job["id"]);
  EXPECT_EQ(list[0]["state"], "succeeded");
  EXPECT_EQ(list[0]["progress"]["done_bytes"], list[0]["progress"]["total_bytes"]);
  ExpectSameAsLocalConversion(model);
}

TEST_F(ConversionJobTest, ConvertWithAnEndpointRunsOneToItsEnd) {
  StartConversion();
  const std::string model = directory_ / "model";
  nlohmann::json result =
      OdmoeJson({"convert", TinyKimiCheckpoint(), "-o", model, "--outtype", "f32", "--endpoint",
                 service_.endpoint, "--json"});
  EXPECT_EQ(result["destination"], model);
  ExpectSameAsLocalConversion(model);
}

TEST_F(ConversionJobTest, SurvivesTheDeathOfTheService) {
  StartConversion();
  const std::string model = directory_ / "model";
  nlohmann::json job = Submit(model);
  auto watch = StartOdmoe({"jobs", "watch", job["id"], "--endpoint", service_.endpoint});
  ASSERT_NE(watch, nullptr);
  // Of whatever step it is in by now.
  const auto line = watch->WaitForLine("%", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  service_.process->Kill();
  StartConversion();
  const auto exit = watch->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 0) << watch->err();
  ExpectSameAsLocalConversion(model);
}

TEST_F(ConversionJobTest, IsRefusedOutsideTheRoots) {
  StartConversion();
  const TemporaryDirectory elsewhere;
  const ProcessOutput output =
      Odmoe({"jobs", "submit", TinyKimiCheckpoint(), "-o", elsewhere / "model", "--endpoint",
             service_.endpoint, "--json"});
  EXPECT_EQ(output.exit.code, 1);
  EXPECT_EQ(nlohmann::json::parse(output.out)["error"]["code"], "PERMISSION_DENIED") << output.out;
}

TEST_F(ConversionJobTest, RunsInThisProcessWithoutAService) {
  const std::string model = directory_ / "model";
  const std::string database = directory_ / "own.db";
  const ProcessOutput submit = Odmoe({"jobs", "submit", TinyKimiCheckpoint(), "-o", model,
                                      "--outtype", "f32", "--database", database});
  EXPECT_EQ(submit.exit.code, 0) << submit.err;
  nlohmann::json list = OdmoeJson({"jobs", "list", "--database", database, "--json"})["jobs"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["state"], "succeeded");
  ExpectSameAsLocalConversion(model);
}

}  // namespace
}  // namespace odmoe
