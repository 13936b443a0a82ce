#include "services/conversion/jobs/job_spec_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace odmoe {
namespace {

using ::testing::HasSubstr;

TEST(JobSpecJsonTest, ReadsAJobFile) {
  const auto spec = ParseJobSpec(R"({"priority": 5, "steps": [
      {"convert": {"source": "a", "destination": "b.gguf", "outtype": "q8_0",
                   "metadata": ["general.name=x"], "vocab_only": true, "pad_vocab": 64,
                   "split_max_bytes": 4000000000, "concurrency": 2, "restart": true}},
      {"merge": {"source": "b", "destination": "d.gguf", "verify": false, "concurrency": 3,
                 "restart": true}},
      {"verify": {"source": "b", "concurrency": 4}},
      {"evaluate": {"model": "b", "text": "c.txt", "base_model": "d", "chunk_tokens": 256,
                    "max_chunks": 60}},
      {"quantize": {"source": "b", "destination": "q", "types": ["q4_k_m", "q8_0"], "batch": true,
                    "directories": true, "pure": true, "leave_output_tensor": true,
                    "allow_requantize": true, "force_ternary": true, "output_tensor_type": "q6_K",
                    "token_embedding_type": "q5_K", "tensor_types": ["a=q8_0"], "importance": "i",
                    "keep_split": true, "split_max_bytes": 7, "concurrency": 2,
                    "skip_trial": true, "text": "c.txt", "base_model": "b"}}]})",
                                 "job.json");
  ASSERT_TRUE(spec.ok()) << spec.status();
  ConvertSpec convert{.source = "a", .destination = "b.gguf", .outtype = "q8_0"};
  convert.metadata = {"general.name=x"};
  convert.vocab_only = true;
  convert.pad_vocab = 64;
  convert.split_max_bytes = 4'000'000'000;
  convert.concurrency = 2;
  convert.restart = true;
  QuantizeSpec quantize{.source = "b", .destination = "q", .types = {"q4_k_m", "q8_0"}};
  quantize.batch = quantize.directories = quantize.pure = quantize.leave_output_tensor = true;
  quantize.allow_requantize = quantize.force_ternary = true;
  quantize.keep_split = quantize.skip_trial = true;
  quantize.output_tensor_type = "q6_K";
  quantize.token_embedding_type = "q5_K";
  quantize.tensor_types = {"a=q8_0"};
  quantize.importance = "i";
  quantize.split_max_bytes = 7;
  quantize.concurrency = 2;
  quantize.text = "c.txt";
  quantize.base_model = "b";
  JobSpec expected;
  expected.priority = 5;
  expected.steps = {convert, MergeSpec{"b", "d.gguf", false, 3, true}, VerifySpec{"b", 4},
                    EvaluateSpec{"b", "c.txt", "d", 256, 60}, quantize};
  EXPECT_EQ(*spec, expected);
  for (const StepSpec& step : expected.steps) {
    EXPECT_EQ(*StepSpecFromJson(*StepSpecToJson(step), "step"), step);
  }
}

TEST(JobSpecJsonTest, RefusesWhatIsNone) {
  const struct {
    const char* text;
    const char* expected;
  } cases[] = {
      {"", "job.json"},
      {"[]", "job.json"},
      {"{}", "steps"},
      {R"({"steps": []})", "0 steps"},
      {R"({"steps": 1})", "steps"},
      {R"({"steps": [{}]})", "steps[0]"},
      {R"({"steps": ["convert"]})", "steps[0]"},
      {R"({"steps": [{"quantise": {}}]})", "quantise"},
      {R"({"steps": [{"convert": 1}]})", "steps[0].convert"},
      {R"({"steps": [{"convert": {"source": "a"}}]})", "destination"},
      {R"({"steps": [{"convert": {"source": "a", "destination": 2}}]})", "destination"},
      {R"({"steps": [{"convert": {"source": "a", "destination": "b", "outype": "f16"}}]})",
       "outype"},
      {R"({"steps": [{"convert": {"source": "a", "destination": "b", "pad_vocab": -1}}]})",
       "pad_vocab"},
      {R"({"steps": [{"convert": {"source": "a", "destination": "b", "metadata": [1]}}]})",
       "metadata"},
      {R"({"steps": [{"convert": {"source": "a", "destination": "b", "restart": 1}}]})", "restart"},
      {R"({"steps": [{"merge": {"source": "a", "destination": "b", "restart": "yes"}}]})",
       "restart"},
      {R"({"steps": [{"evaluate": {"model": "a"}}]})", "text"},
      {R"({"steps": [{"evaluate": {"model": "a", "text": "b", "chunk_tokens": 7}}]})",
       "chunk_tokens"},
      {R"({"steps": [{"evaluate": {"model": "a", "text": "b", "max_chunks": -1}}]})", "max_chunks"},
      {R"({"steps": [{"quantize": {"source": "a"}}]})", "destination"},
      {R"({"steps": [{"quantize": {"source": "a", "destination": "b", "types": "f16"}}]})",
       "types"},
      {R"({"steps": [{"quantize": {"source": "a", "destination": "b", "type": "f16"}}]})", "type"},
      {R"({"steps": [{"quantize": {"source": "a", "destination": "b", "concurrency": -1}}]})",
       "concurrency"},
      {R"({"prio": 1, "steps": [{"evaluate": {"model": "a", "text": "b"}}]})", "prio"},
      {R"({"priority": 5000, "steps": [{"evaluate": {"model": "a", "text": "b"}}]})", "priority"},
  };
  for (const auto& [text, expected] : cases) {
    const absl::Status status = ParseJobSpec(text, "job.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected)) << text;
  }
}

TEST(JobSpecJsonTest, TextThatIsNotUtf8IsRefused) {
  EXPECT_EQ(StepSpecToJson(EvaluateSpec{"/a\xff", "/b"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
