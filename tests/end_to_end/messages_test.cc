// What a user sees first when something is wrong: one line that says what to do, and an exit code.
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

// A failed run: nothing but one line on standard error.
std::string FailureLine(const std::vector<std::string>& arguments, int code) {
  const ProcessOutput output = Odmoe(arguments);
  EXPECT_EQ(output.exit.code, code) << output.out << output.err;
  EXPECT_THAT(output.out, IsEmpty());
  EXPECT_THAT(std::vector<std::string>(absl::StrSplit(output.err, '\n')), SizeIs(2)) << output.err;
  EXPECT_THAT(output.err, StartsWith("odmoe: "));
  return output.err;
}

TEST(MessagesTest, NoSuchModelSaysHowToMakeOne) {
  EXPECT_THAT(FailureLine({"generate", "/nowhere/model", "-p", "x"}, 1),
              AllOf(HasSubstr("no such model: /nowhere/model"), HasSubstr("odmoe convert")));
}

TEST(MessagesTest, ACommandThereIsNoneOfIsNamed) {
  EXPECT_THAT(FailureLine({"stat"}, 2),
              HasSubstr("no command 'stat'; did you mean 'stats'; see odmoe --help"));
  EXPECT_THAT(FailureLine({"jobs", "lst"}, 2),
              HasSubstr("no command 'lst'; did you mean 'list'; see odmoe jobs --help"));
}

TEST(MessagesTest, HelpIsNotCutByATerminal) {
  for (const char* command : {"convert", "generate", "replay", "stats"}) {
    const ProcessOutput help = Odmoe({command, "--help"});
    EXPECT_EQ(help.exit.code, 0) << help.err;
    for (const absl::string_view line : absl::StrSplit(help.out, '\n')) {
      EXPECT_LE(line.size(), 100u) << line;
    }
  }
}

TEST(MessagesTest, ACheckpointIsNamedAsOne) {
  EXPECT_THAT(FailureLine({"generate", TinyKimiCheckpoint(), "-p", "x"}, 1),
              AllOf(HasSubstr("is a Hugging Face checkpoint"), HasSubstr("odmoe convert")));
}

TEST(MessagesTest, AGgufFileIsNamedAsOne) {
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "m.gguf", "GGUF");
  EXPECT_THAT(FailureLine({"score", directory / "m.gguf", "-f", directory / "m.gguf"}, 1),
              AllOf(HasSubstr("m.gguf: at offset 4"), HasSubstr("the file ends")));
  WriteFileOrDie(directory / "m", "no model");
  EXPECT_THAT(FailureLine({"score", directory / "m", "-f", directory / "m"}, 1),
              AllOf(HasSubstr("neither a model directory nor a GGUF file"),
                    HasSubstr("odmoe convert")));
}

TEST(MessagesTest, WhatIsNoGgufFileIsRefused) {
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "m.gguf", "This is a text and no model, however it is called.");
  EXPECT_THAT(FailureLine({"convert", directory / "m.gguf", "-o", directory / "m"}, 1),
              AllOf(HasSubstr("m.gguf"), HasSubstr("GGUF")));
  EXPECT_THAT(FailureLine({"inspect", directory / "m.gguf"}, 1), HasSubstr("GGUF"));
  EXPECT_THAT(FailureLine({"tokenize", directory / "m.gguf", "x"}, 1), HasSubstr("GGUF"));
}

TEST(MessagesTest, ABudgetBelowOneLayersDemandNamesBothFigures) {
  EXPECT_THAT(FailureLine({"generate", TinyKimi(), "-p", "x", "--expert-budget", "1000"}, 1),
              AllOf(HasSubstr("budget"), HasSubstr("1000 B")));
}

TEST(MessagesTest, AnExistingDestinationIsNotOverwritten) {
  EXPECT_THAT(FailureLine({"convert", TinyKimiCheckpoint(), "-o", TinyKimi()}, 1),
              AllOf(HasSubstr("exists"), HasSubstr("--force")));
}

TEST(MessagesTest, ForceSparesAFolderThatIsNoModel) {
  const TemporaryDirectory directory;
  WriteFileOrDie(directory / "letter", "Dear");
  EXPECT_THAT(FailureLine({"convert", TinyKimiCheckpoint(), "-o", directory.path(), "--force"}, 1),
              HasSubstr("--force does not remove"));
  EXPECT_EQ(ReadFileOrDie(directory / "letter"), "Dear");
}

TEST(MessagesTest, AnUnreachableServiceIsNamed) {
  const TemporaryDirectory directory;
  const std::string endpoint = absl::StrCat("unix:", directory / "nobody.sock");
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"generate", "m", "-p", "x"},
                                             {"score", "m", "-f", "/etc/hostname"},
                                             {"tokenize", "m", "x"},
                                             {"jobs", "list"},
                                             {"stats"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--endpoint", endpoint});
    EXPECT_THAT(FailureLine(arguments, 1), HasSubstr("nobody.sock"));
  }
}

TEST(MessagesTest, TheWrongKindOfServiceIsNamed) {
  const TemporaryDirectory directory;
  const Service conversion =
      StartService("odmoe-conversion", {"--listen", "127.0.0.1:0", "--database",
                                        directory / "jobs.db", "--root", directory.path()});
  EXPECT_THAT(FailureLine({"stats", "--endpoint", conversion.endpoint}, 1),
              HasSubstr("neither an expert-storage nor an inference service"));
}

struct Usage {
  const char* name;
  std::vector<std::string> arguments;
  const char* message;

  friend void PrintTo(const Usage& usage, std::ostream* out) { *out << usage.name; }
};

class UsageTest : public ::testing::TestWithParam<Usage> {};

TEST_P(UsageTest, IsRefusedWithExitCodeTwo) {
  EXPECT_THAT(FailureLine(GetParam().arguments, 2), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    CommandLines, UsageTest,
    ::testing::Values(
        Usage{"NoCommand", {}, "--help"},
        Usage{"UnknownCommand", {"frobnicate"}, "odmoe --help"},
        Usage{"UnknownFlag", {"generate", "m", "--frobnicate"}, "odmoe generate --help"},
        Usage{"MissingModel", {"generate"}, "model"},
        Usage{"BudgetThatIsNone", {"generate", "m", "-p", "x", "--expert-budget", "lots"}, "lots"},
        Usage{"SourceThatIsNone", {"generate", "m", "-p", "x", "--source", "tape"}, "tape"},
        Usage{"PolicyThatIsNone", {"generate", "m", "-p", "x", "--policy", "fifo"}, "next-use"},
        Usage{"ReplayWithoutATrace", {"replay"}, "trace"},
        Usage{"ReplayedPolicyThatIsNone", {"replay", "t", "--policy", "fifo"}, "belady"},
        Usage{"ReplayedBudgetThatIsNone", {"replay", "t", "--budget", "lots"}, "1.5x"},
        Usage{"OuttypeThatIsNone", {"convert", "a", "-o", "b", "--outtype", "q9"}, "q9"},
        Usage{"NoTokens", {"generate", "m", "-p", "x", "-n", "0"}, "--tokens"},
        Usage{"NegativeTemperature", {"generate", "m", "-p", "x", "--temp", "-1"}, "--temp"},
        Usage{"EmptyPrompt", {"generate", "m", "-p", ""}, "prompt is empty"},
        Usage{"TwoTexts", {"tokenize", "m", "text", "-f", "file"}, "not both"},
        Usage{"TwoStores",
              {"generate", "m", "-p", "x", "--expert-store", "a:1", "--remote-expert-store", "b:1"},
              "not both"},
        Usage{"StoreAndEndpoint",
              {"generate", "m", "-p", "x", "--expert-store", "a:1", "--endpoint", "b:1"},
              "--endpoint"},
        Usage{"StatsOfNothing", {"stats"}, "--endpoint"},
        Usage{"ResizeNowhere", {"resize", "25%"}, "--endpoint"},
        Usage{"ResizeToNothing", {"resize", "0"}, "not a budget"},
        Usage{"LoadNowhere", {"load", "m"}, "--expert-store"},
        Usage{"UnloadNowhere", {"unload"}, "--expert-store"},
        Usage{"JobsWithoutVerb", {"jobs"}, "odmoe jobs --help"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(MessagesTest, WithJsonAnErrorIsAnObjectToo) {
  const ProcessOutput output = Odmoe({"generate", "/nowhere/model", "-p", "x", "--json"});
  EXPECT_EQ(output.exit.code, 1);
  EXPECT_EQ(nlohmann::json::parse(output.out)["error"]["code"], "NOT_FOUND");
  EXPECT_THAT(output.err, StartsWith("odmoe: no such model"));
}

TEST(MessagesTest, VersionAndHelpSucceed) {
  EXPECT_THAT(Odmoe({"--version"}).out, StartsWith("odmoe 0."));
  for (const std::string command : {"convert", "inspect", "toy", "tokenize", "score", "generate",
                                    "serve", "load", "unload", "resize", "jobs", "stats"}) {
    const ProcessOutput output = Odmoe({command, "--help"});
    EXPECT_EQ(output.exit.code, 0) << command;
    EXPECT_THAT(output.out, HasSubstr(absl::StrCat("Examples:\n  odmoe ", command)));
  }
}

// The argument library has ideas of its own about quotes, brackets and dashes.
TEST(MessagesTest, TextArgumentsAreTakenAsTheyAre) {
  const TemporaryDirectory directory;
  for (const std::string text : {"\"My dear,\"", "'x'", "[a,b]", "{}", "%p", "a\nb", " x ", ""}) {
    WriteFileOrDie(directory / "text", text);
    const nlohmann::json from_file =
        OdmoeJson({"tokenize", TinyKimi(), "-f", directory / "text", "--json"});
    EXPECT_EQ(OdmoeJson({"tokenize", TinyKimi(), text, "--json"}), from_file) << text;
  }
  const ProcessOutput dash = Odmoe({"tokenize", TinyKimi(), "--json", "--", "--dash"});
  const ProcessOutput input = Odmoe({"tokenize", TinyKimi(), "--json"}, "--dash");
  EXPECT_EQ(dash.exit.code, 0) << dash.err;
  EXPECT_EQ(dash.out, input.out);
}

}  // namespace
}  // namespace odmoe
