// Quantization, and another quantizer's of the same file to the same bytes, in turns. See
// README.md.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "converter/quantize/quantize.h"
#include "converter/toy/toy_model.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

struct Options {
  std::string folder;
  std::string source;  // a GGUF file; empty: a toy
  std::string rival;   // a command with {in}, {out}, {type} and {threads}; empty: ours alone
  ToyOptions toy{.layers = 5, .experts = 32, .dim = 1024, .ffn_dim = 1024};
  std::vector<std::string> types = {"q4_k_m", "q6_k", "q8_0"};
  int threads = 2;
  int rounds = 5;
};

// What a run took: its time, and the most memory its process had.
struct Cost {
  double seconds = 0.0;
  uint64_t peak_bytes = 0;
};

// Runs `work` in a process of its own, whose memory is then its alone.
template <typename Work>
absl::StatusOr<Cost> Measure(const Work& work) {
  const absl::Time start = absl::Now();
  const pid_t child = fork();
  if (child < 0) return absl::InternalError("cannot fork");
  if (child == 0) _exit(work());
  int status = 0;
  rusage usage{};
  if (wait4(child, &status, 0, &usage) != child || status != 0) {
    return absl::InternalError("a run failed");
  }
  return Cost{absl::ToDoubleSeconds(absl::Now() - start),
              static_cast<uint64_t>(usage.ru_maxrss) * kKiB};
}

absl::StatusOr<Cost> Ours(const Options& options, const std::string& source,
                          const std::string& type, const std::string& out) {
  return Measure([&] {
    const auto plan = PlanQuantization({.source = source,
                                        .destination = out,
                                        .types = {type},
                                        .tensors = {.allow_requantize = true},
                                        .concurrency = options.threads});
    const absl::Status status =
        plan.ok() ? RunQuantization(*plan, nullptr, nullptr) : plan.status();
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  });
}

absl::StatusOr<Cost> Theirs(const Options& options, const std::string& source,
                            const std::string& type, const std::string& out) {
  const std::string command =
      absl::StrReplaceAll(options.rival, {{"{in}", source},
                                          {"{out}", out},
                                          {"{type}", type},
                                          {"{threads}", absl::StrCat(options.threads)}});
  return Measure([&] {
    execl("/bin/sh", "sh", "-c", absl::StrCat("exec ", command).c_str(), nullptr);
    return 127;
  });
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

absl::Status Compare(const Options& options, const std::string& source, const std::string& type) {
  const std::string ours = options.folder + "/ours.gguf", theirs = options.folder + "/theirs.gguf";
  std::vector<double> our_seconds, their_seconds, ratios;
  uint64_t our_peak = 0, their_peak = 0;
  for (int round = 0; round < options.rounds; ++round) {
    ODMOE_ASSIGN_OR_RETURN(const Cost our, Ours(options, source, type, ours));
    our_seconds.push_back(our.seconds);
    our_peak = std::max(our_peak, our.peak_bytes);
    if (options.rival.empty()) continue;
    ODMOE_ASSIGN_OR_RETURN(const Cost their, Theirs(options, source, type, theirs));
    their_seconds.push_back(their.seconds);
    their_peak = std::max(their_peak, their.peak_bytes);
    ratios.push_back(their.seconds / our.seconds);
    if (std::system(absl::StrCat("cmp '", ours, "' '", theirs, "'").c_str()) != 0) {
      return absl::InternalError(absl::StrCat(type, ": the files differ"));
    }
  }
  std::printf("%-8s ours %.3f s, %s", type.c_str(), Median(our_seconds),
              FormatBytes(our_peak).c_str());
  if (!ratios.empty()) {
    const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
    std::printf("; theirs %.3f s, %s; %.2f times as fast (%.2f to %.2f), same bytes",
                Median(their_seconds), FormatBytes(their_peak).c_str(), Median(ratios), *least,
                *most);
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  const std::string source = options.source.empty() ? options.folder + "/toy.gguf" : options.source;
  if (options.source.empty()) ODMOE_RETURN_IF_ERROR(WriteToyModel(options.toy, source));
  for (const std::string& type : options.types) {
    ODMOE_RETURN_IF_ERROR(Compare(options, source, type));
  }
  return absl::OkStatus();
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    int number = 0;
    const bool is_number = absl::SimpleAtoi(value, &number);
    if (name == "--folder") options.folder = value;
    else if (name == "--source") options.source = value;
    else if (name == "--rival") options.rival = value;
    else if (name == "--types") options.types = absl::StrSplit(value, ',');
    else if (name == "--threads" && is_number) options.threads = number;
    else if (name == "--rounds" && is_number) options.rounds = number;
    else return false;
  }
  return argc % 2 == 1 && !options.folder.empty() && options.rounds > 0;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) {
  odmoe::Options options;
  if (!odmoe::Parse(argc, argv, options)) {
    std::fprintf(
        stderr,
        "usage: quantize_bench --folder EMPTY_FOLDER [--source GGUF] [--types T,T..]\n"
        "         [--threads N] [--rounds N] [--rival 'COMMAND {in} {out} {type} {threads}']\n");
    return 2;
  }
  const absl::Status status = odmoe::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
