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
                             "--root", TinyKimiCheckpoint(), "--spool", directory_ / "spool"});
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

TEST_F(ConversionJobTest, APipelineConvertsAndEvaluates) {
  StartConversion();
  const std::string gguf = directory_ / "kimi.gguf", model = directory_ / "kimi";
  WriteFileOrDie(directory_ / "text", Reference("passage-one")["text"].get<std::string>());
  const nlohmann::json pipeline = {
      {"priority", 3},
      {"steps",
       {{{"convert",
          {{"source", TinyKimiCheckpoint()}, {"destination", gguf}, {"outtype", "f32"}}}},
        {{"convert", {{"source", gguf}, {"destination", model}}}},
        {{"verify", {{"source", model}}}},
        {{"merge", {{"source", model}, {"destination", directory_ / "again.gguf"}}}},
        {{"evaluate", {{"model", model}, {"text", directory_ / "text"}, {"base_model", model},
                       {"chunk_tokens", 64}}}}}}};
  WriteFileOrDie(directory_ / "pipeline.json", pipeline.dump());
  nlohmann::json job = OdmoeJson({"jobs", "submit", directory_ / "pipeline.json", "--request-id",
                                  "r", "--endpoint", service_.endpoint, "--json"});
  const ProcessOutput watch =
      Odmoe({"jobs", "watch", job["id"], "--endpoint", service_.endpoint, "--json"});
  EXPECT_EQ(watch.exit.code, 0) << watch.out << watch.err;
  const std::vector<std::string> lines = absl::StrSplit(watch.out, '\n', absl::SkipEmpty());
  ASSERT_FALSE(lines.empty());
  nlohmann::json ended = nlohmann::json::parse(lines.back());
  EXPECT_EQ(ended["state"], "succeeded") << ended;
  EXPECT_EQ(ended["priority"], 3);
  ASSERT_EQ(ended["steps"].size(), 5u);
  for (const auto& step : ended["steps"]) EXPECT_EQ(step["state"], "done") << step;
  EXPECT_EQ(ended["steps"][0]["result"]["bytes"], std::filesystem::file_size(gguf));
  EXPECT_NE(ended["steps"][1]["result"]["digest"], "");
  EXPECT_GT(ended["steps"][2]["result"]["metrics"]["hashes"], 0);
  EXPECT_EQ(ReadFileOrDie(gguf), ReadFileOrDie(directory_ / "again.gguf"));
  ExpectSameAsLocalConversion(model);
  nlohmann::json evaluated = OdmoeJson({"evaluate", model, "-f", directory_ / "text", "--chunk",
                                        "64", "--json"});
  const nlohmann::json& metrics = ended["steps"][4]["result"]["metrics"];
  EXPECT_NEAR(metrics["perplexity"].get<double>(),
              evaluated["text"]["perplexity"]["value"].get<double>(), 1e-6);
  EXPECT_EQ(metrics["tokens"], evaluated["text"]["tokens"]);
  EXPECT_NEAR(metrics["mean_kld"].get<double>(), 0.0, 1e-6);
  EXPECT_EQ(metrics["same_top"], 1.0);
  const nlohmann::json weights =
      OdmoeJson({"evaluate", model, "--base", gguf, "--tensors", "--svg", directory_ / "plot.svg",
                 "--json"})["weights"];
  EXPECT_GT(weights["tensors"].size(), 50u);
  EXPECT_EQ(weights["layers"][0]["relative"], 0.0);
  EXPECT_THAT(ReadFileOrDie(directory_ / "plot.svg"), ::testing::HasSubstr("</svg>"));
  const nlohmann::json importance = OdmoeJson({"imatrix", model, "-f", directory_ / "text", "-o",
                                               directory_ / "importance.gguf", "--chunk", "64",
                                               "--json"});
  EXPECT_EQ(importance["chunks"], 7);  // of 508 tokens
  EXPECT_GT(importance["tensors"], 40);
  // Without anything to evaluate, or to compare with, there is a usage to learn.
  EXPECT_EQ(Odmoe({"evaluate", model}).exit.code, 2);
  EXPECT_EQ(Odmoe({"evaluate", model, "--tensors"}).exit.code, 2);
  EXPECT_EQ(Odmoe({"evaluate", model, "--kl-divergence"}).exit.code, 2);
  // The same request again is the same job, and it can be shown and forgotten.
  EXPECT_EQ(OdmoeJson({"jobs", "submit", directory_ / "pipeline.json", "--request-id", "r",
                       "--endpoint", service_.endpoint, "--json"})["id"],
            job["id"]);
  const ProcessOutput show = Odmoe({"jobs", "show", job["id"], "--endpoint", service_.endpoint});
  EXPECT_THAT(show.out, ::testing::HasSubstr("perplexity"));
  EXPECT_EQ(Odmoe({"jobs", "delete", job["id"], "--endpoint", service_.endpoint}).exit.code, 0);
  EXPECT_EQ(Odmoe({"jobs", "show", job["id"], "--endpoint", service_.endpoint}).exit.code, 1);
}

TEST_F(ConversionJobTest, UploadsConvertsAndDownloads) {
  StartConversion();
  const std::string model = directory_ / "kimi";
  const std::vector<std::string> command = {"convert",   TinyKimiCheckpoint(), "-o",
                                            model,       "--outtype",          "f32",
                                            "--endpoint", service_.endpoint,   "--transfer"};
  // Killed as soon as some bytes are there, and the service after it; the same command goes on.
  auto client = StartOdmoe(command);
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(client->WaitForLine("upload", kPatience).ok());
  client->Kill();
  service_.process->Kill();
  StartConversion();
  const ProcessOutput done = Odmoe(command);
  EXPECT_EQ(done.exit.code, 0) << done.err;
  ExpectSameAsLocalConversion(model);
  // Nothing stays behind.
  EXPECT_TRUE(std::filesystem::is_empty(directory_ / "spool"));
  EXPECT_EQ(OdmoeJson({"jobs", "list", "--endpoint", service_.endpoint, "--json"})["jobs"].size(),
            0u);
}

TEST_F(ConversionJobTest, ATransferSendsTheOtherFilesToo) {
  StartConversion();
  // Names that clash on purpose, and a map that has to be there for anything to be converted.
  nlohmann::json map = {{"model.embed_tokens.weight", "token_embd.weight"}};
  WriteFileOrDie(directory_ / "map.json", map.dump());
  std::filesystem::create_directory(directory_ / "more");
  WriteFileOrDie(directory_ / "keys", "general.name=Tiny\ngeneral.architecture=toy\n");
  WriteFileOrDie(directory_ / "more/keys", "toy.answer=u32:42\n");
  std::vector<std::string> command = {
      "convert",    TinyKimiCheckpoint(),  "--vocab-only", "--metadata",
      directory_ / "keys", "--metadata",   directory_ / "more/keys", "--metadata",
      "general.version=3", "--tensor-map", directory_ / "map.json",  "-o"};
  std::vector<std::string> here = command, there = command;
  here.push_back(directory_ / "here.gguf");
  const ProcessOutput local = Odmoe(here);
  EXPECT_EQ(local.exit.code, 0) << local.err;
  there.insert(there.end(), {directory_ / "there.gguf", "--endpoint", service_.endpoint,
                             "--transfer"});
  const ProcessOutput remote = Odmoe(there);
  EXPECT_EQ(remote.exit.code, 0) << remote.err;
  EXPECT_EQ(ReadFileOrDie(directory_ / "there.gguf"), ReadFileOrDie(directory_ / "here.gguf"));
  EXPECT_THAT(ReadFileOrDie(directory_ / "there.gguf"), ::testing::HasSubstr("toy.answer"));
  EXPECT_TRUE(std::filesystem::is_empty(directory_ / "spool"));
}

TEST_F(ConversionJobTest, ADownloadSurvivesTheDeathOfTheService) {
  StartConversion();
  std::string bytes(24 << 20, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = char(i * 2654435761u >> 15);
  WriteFileOrDie(directory_ / "there", bytes);
  auto client = StartOdmoe({"download", directory_ / "there", "-o", directory_ / "here/copy",
                            "--endpoint", service_.endpoint});
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(client->WaitForLine("download", kPatience).ok());
  service_.process->Kill();
  StartConversion();
  const auto exit = client->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 0) << client->err();
  EXPECT_EQ(ReadFileOrDie(directory_ / "here/copy"), bytes);
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
