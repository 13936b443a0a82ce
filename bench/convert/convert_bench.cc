// A split, and cp of the same bytes with sync, in turns on the same disk. See README.md.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "converter/convert.h"
#include "converter/toy/toy_model.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string folder;
  std::string source;  // what to convert; empty: a toy
  std::string to = "model";
  ToyOptions toy{.layers = 9, .experts = 32, .dim = 512, .ffn_dim = 512};
  int rounds = 7;
  std::vector<int> concurrency = {1, 2};
};

// Seconds a shell command takes; fails where it does.
absl::StatusOr<double> TimeCommand(const std::string& command) {
  const absl::Time start = absl::Now();
  if (std::system(command.c_str()) != 0) return absl::InternalError(absl::StrCat("failed: ", command));
  return absl::ToDoubleSeconds(absl::Now() - start);
}

absl::StatusOr<double> TimeConversion(const std::string& source, const std::string& destination,
                                      int concurrency) {
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(
      const ConvertPlan plan,
      PlanConversion(
          {.source = source, .destination = destination, .concurrency = concurrency}));
  ODMOE_RETURN_IF_ERROR(RunConversion(plan, nullptr, nullptr));
  return absl::ToDoubleSeconds(absl::Now() - start);
}

// Removed and synced before the next is timed, so that each starts on a quiet disk.
absl::Status Clear(const std::string& path) {
  return TimeCommand(absl::StrCat("rm -rf '", path, "' && sync")).status();
}

uint64_t BytesBelow(const std::string& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void PrintRow(const char* name, const std::vector<double>& seconds, uint64_t bytes) {
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  std::printf("%-18s median %.3f s (%.3f to %.3f), %.2f GB/s\n", name, Median(seconds), *least, *most,
              static_cast<double>(bytes) / Median(seconds) / 1e9);
}

absl::Status Run(const Options& options) {
  const std::string source = options.source.empty() ? options.folder + "/toy.gguf" : options.source;
  if (options.source.empty()) ODMOE_RETURN_IF_ERROR(WriteToyModel(options.toy, source));
  const std::string model = options.folder + "/" + options.to;
  const std::string reference = options.folder + "/reference", copy = options.folder + "/copy";
  ODMOE_RETURN_IF_ERROR(TimeConversion(source, reference + (options.to == "model" ? "" : ".gguf"), 0)
                            .status());
  const std::string from = reference + (options.to == "model" ? "" : ".gguf");
  const uint64_t bytes = BytesBelow(from);
  std::printf("%llu bytes\n", static_cast<unsigned long long>(bytes));
  std::vector<double> copied;
  std::vector<std::vector<double>> converted(options.concurrency.size()), ratios = converted;
  for (int round = 0; round < options.rounds; ++round) {
    ODMOE_RETURN_IF_ERROR(Clear(copy));
    ODMOE_ASSIGN_OR_RETURN(const double copy_seconds,
                           TimeCommand(absl::StrCat("cp -r '", from, "' '", copy, "' && sync")));
    copied.push_back(copy_seconds);
    ODMOE_RETURN_IF_ERROR(Clear(copy));
    for (size_t i = 0; i < options.concurrency.size(); ++i) {
      ODMOE_RETURN_IF_ERROR(Clear(model));
      ODMOE_ASSIGN_OR_RETURN(const double seconds,
                             TimeConversion(source, model, options.concurrency[i]));
      converted[i].push_back(seconds);
      ratios[i].push_back(copy_seconds / seconds);
    }
    ODMOE_RETURN_IF_ERROR(Clear(model));
  }
  PrintRow("cp -r and sync", copied, bytes);
  for (size_t i = 0; i < options.concurrency.size(); ++i) {
    PrintRow(absl::StrCat("concurrency ", options.concurrency[i]).c_str(), converted[i], bytes);
    const auto [least, most] = std::minmax_element(ratios[i].begin(), ratios[i].end());
    std::printf("%-18s median %.2f (%.2f to %.2f) of cp's speed, paired\n", "", Median(ratios[i]),
                *least, *most);
  }
  std::printf("resident at most   %s\n", FormatBytes(PeakRssBytes()).c_str());
  return Clear(reference);
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    int number = 0;
    const bool is_number = absl::SimpleAtoi(value, &number);
    if (name == "--folder") options.folder = value;
    else if (name == "--source") options.source = value;
    else if (name == "--to") options.to = value;
    else if (name == "--layers" && is_number) options.toy.layers = number;
    else if (name == "--experts" && is_number) options.toy.experts = number;
    else if (name == "--dim" && is_number) options.toy.dim = number;
    else if (name == "--ffn" && is_number) options.toy.ffn_dim = number;
    else if (name == "--rounds" && is_number) options.rounds = number;
    else if (name == "--concurrency" && is_number) options.concurrency = {number};
    else return false;
  }
  return argc % 2 == 1 && !options.folder.empty() && options.rounds > 0;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) {
  odmoe::Options options;
  if (!odmoe::Parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: convert_bench --folder EMPTY_FOLDER [--source GGUF_OR_CHECKPOINT]\n"
                 "         [--to model|model.gguf] [--layers N] [--experts N] [--dim N] [--ffn N]\n"
                 "         [--rounds N] [--concurrency N]\n");
    return 2;
  }
  const absl::Status status = odmoe::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
