// The program odmoe-inference: its flags, its first line, its end.
#include <signal.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cpp/remote_language_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/metrics_text.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

const absl::Duration kPatience = absl::Seconds(60);

Subprocess::Options Program(const std::vector<std::string>& arguments) {
  Subprocess::Options options;
  options.arguments = {std::string(ODMOE_BIN_DIR) + "/odmoe-inference"};
  options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
  return options;
}

class ProgramTest : public testing::Test {
 protected:
  // A run that ends by itself, with exit code `code`; what it wrote.
  std::string Failure(const std::vector<std::string>& arguments, int code) {
    const auto output = Subprocess::Run(Program(arguments), kPatience);
    EXPECT_TRUE(output.ok()) << output.status();
    EXPECT_EQ(output->exit.code, code) << output->out << output->err;
    return output->out + output->err;
  }

  TemporaryDirectory directory_;
};

TEST_F(ProgramTest, AnnouncesItselfAnswersWithoutAModelAndDrainsOnASignal) {
  const std::string nobody = absl::StrCat("unix:", directory_ / "nobody.sock");
  auto process = Subprocess::Start(
      Program({"--root", directory_.path(), "--root", TinyKimiDirectory("bf16"), "--expert-store",
               nobody, "--endpoint-file", directory_ / "endpoint", "--metrics", "127.0.0.1:0"}));
  ASSERT_TRUE(process.ok()) << process.status();
  const auto line = (*process)->WaitForLine("listening on ", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  const std::string endpoint = line->substr(std::string("listening on ").size());
  EXPECT_EQ(ReadFileOrDie(directory_ / "endpoint"), endpoint + "\n");

  const auto metrics = (*process)->WaitForLine("metrics at ", kPatience);
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  const std::string text = FetchMetrics(metrics->substr(metrics->find("http://")));
  ExpectMetricsText(text);
  EXPECT_THAT(text, HasSubstr("\nodmoe_inference_num_requests_running 0\n"));

  const auto stats = GetInferenceStats(endpoint);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->requests, 0);
  EXPECT_EQ((*ConnectLanguageModel(endpoint, ""))->Info().status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(LoadModel(endpoint, directory_.path(), 0).status().code(),
            absl::StatusCode::kNotFound);  // a folder, but no model
  // Nobody is at the store's endpoint.
  EXPECT_EQ(LoadModel(endpoint, TinyKimiDirectory("bf16"), 0).status().code(),
            absl::StatusCode::kUnavailable);

  (*process)->Signal(SIGTERM);
  const auto exit = (*process)->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 0) << (*process)->err();
}

TEST_F(ProgramTest, UsageErrorsAreSaid) {
  EXPECT_THAT(Failure({"--expert-store", "a:1"}, 106), HasSubstr("--root"));
  const std::string both =
      Failure({"--root", "/", "--expert-store", "a:1", "--remote-expert-store", "b:1"}, 106);
  EXPECT_THAT(both, HasSubstr("--remote-expert-store"));
}

TEST_F(ProgramTest, WhatCannotStartFailsWithAReason) {
  EXPECT_THAT(Failure({"--root", directory_ / "none", "--expert-store", "a:1"}, 1),
              HasSubstr("none"));
  EXPECT_THAT(
      Failure({"--root", directory_.path(), "--expert-store", "a:1", "--listen", "nowhere"}, 1),
      HasSubstr("nowhere"));
  EXPECT_THAT(
      Failure({"--root", directory_.path(), "--expert-store", "a:1", "--metrics", "nowhere"}, 1),
      HasSubstr("nowhere"));
  EXPECT_THAT(Failure({"--root", directory_.path(), "--expert-store", "a:1", "--model", "/etc"}, 1),
              HasSubstr("PERMISSION_DENIED"));
}

}  // namespace
}  // namespace odmoe
