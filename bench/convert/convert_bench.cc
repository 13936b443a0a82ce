// A conversion, cp of the same bytes with sync, and another program, in turns on the same disk. See
// README.md.
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
#include "services/core/base/cancellation.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string folder;
  std::string source;  // what to convert; empty: a toy
  std::string to = "model";
  ToyOptions toy{.layers = 9, .experts = 32, .dim = 512, .ffn_dim = 512};
  std::string against;    // a shell command that does the same, its output's path in $OUT; or empty
  std::string outtype = "auto";
  uint64_t stop_bytes = 0;  // not 0: convert this much, and tell the memory it took
  int rounds = 7;
  std::vector<int> concurrency = {1, 2};
};

// Seconds a shell command takes; fails where it does.
absl::StatusOr<double> TimeCommand(const std::string& command) {
  const absl::Time start = absl::Now();
  if (std::system(command.c_str()) != 0) {
    return absl::InternalError(absl::StrCat("failed: ", command));
  }
  return absl::ToDoubleSeconds(absl::Now() - start);
}

absl::StatusOr<double> TimeConversion(const Options& options, const std::string& source,
                                      const std::string& destination, int concurrency) {
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, PlanConversion({.source = source,
                                                                 .destination = destination,
                                                                 .outtype = options.outtype,
                                                                 .concurrency = concurrency}));
  ODMOE_RETURN_IF_ERROR(RunConversion(plan, nullptr, nullptr));
  return absl::ToDoubleSeconds(absl::Now() - start);
}

// The beginning of a conversion whose output this disk may not hold: on a file system that says
// there is room.
class RoomyFileSystem : public FileSystem {
 public:
  using Reader = std::unique_ptr<RandomAccessFile>;
  using Writer = std::unique_ptr<WritableFile>;
  absl::StatusOr<Reader> OpenForRead(const std::string& path) override {
    return base_.OpenForRead(path);
  }
  absl::StatusOr<Writer> OpenForWrite(const std::string& path) override {
    ODMOE_ASSIGN_OR_RETURN(Writer file, base_.OpenForWrite(path));
    return std::make_unique<LazyFile>(std::move(file));
  }
  absl::StatusOr<Writer> OpenForUpdate(const std::string& path) override {
    return base_.OpenForUpdate(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return base_.Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return base_.Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override {
    return base_.SyncDirectory(path);
  }
  absl::Status SyncFileSystem(const std::string& path) override {
    return base_.SyncFileSystem(path);
  }
  absl::Status CreateDirectories(const std::string& path) override {
    return base_.CreateDirectories(path);
  }
  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override {
    return base_.ListDirectory(path);
  }
  absl::StatusOr<uint64_t> FreeBytes(const std::string&) override { return ~uint64_t{0}; }

 private:
  // Takes disk space as it is written, not before.
  class LazyFile : public WritableFile {
   public:
    explicit LazyFile(Writer base) : base_(std::move(base)) {}
    using WritableFile::Append;
    absl::Status Append(absl::Span<const std::byte> data) override { return base_->Append(data); }
    absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) override {
      return base_->WriteAt(offset, data);
    }
    absl::Status Resize(uint64_t bytes) override { return base_->Resize(bytes); }
    absl::Status Lock() override { return base_->Lock(); }
    absl::Status Sync() override { return base_->Sync(); }
    absl::Status Close() override { return base_->Close(); }
    uint64_t offset() const override { return base_->offset(); }
    const std::string& path() const override { return base_->path(); }

   private:
    const Writer base_;
  };

  FileSystem& base_ = PosixFileSystem();
};

absl::Status MeasureMemory(const Options& options, const std::string& destination) {
  RoomyFileSystem fs;
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan,
                         PlanConversion({.source = options.source,
                                         .destination = destination,
                                         .outtype = options.outtype,
                                         .concurrency = options.concurrency[0],
                                         .file_system = &fs}));
  std::printf("planned: %zu tensors, %s of output, in %.1f s, resident at most %s\n",
              plan.tensors.size(), FormatBytes(plan.disk_bytes).c_str(),
              absl::ToDoubleSeconds(absl::Now() - start), FormatBytes(PeakRssBytes()).c_str());
  Cancellation cancellation;
  const absl::Time run = absl::Now();
  const absl::Status status =
      RunConversion(plan, &cancellation, [&](const ConvertProgress& progress) {
        if (progress.done_bytes >= options.stop_bytes) cancellation.Cancel();
      });
  if (!status.ok() && !absl::IsCancelled(status)) return status;
  std::printf("%s %s in %.1f s, resident at most %s\n", FormatBytes(options.stop_bytes).c_str(),
              status.ok() ? "were more than all, which was converted" : "converted, then stopped",
              absl::ToDoubleSeconds(absl::Now() - run), FormatBytes(PeakRssBytes()).c_str());
  return absl::OkStatus();
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
  std::printf("%-18s median %.3f s (%.3f to %.3f), %.2f GB/s\n", name, Median(seconds), *least,
              *most, static_cast<double>(bytes) / Median(seconds) / 1e9);
}

absl::Status Run(const Options& options) {
  const std::string source = options.source.empty() ? options.folder + "/toy.gguf" : options.source;
  if (options.source.empty()) ODMOE_RETURN_IF_ERROR(WriteToyModel(options.toy, source));
  const std::string model = options.folder + "/" + options.to;
  if (options.stop_bytes > 0) return MeasureMemory(options, model);
  const std::string reference = options.folder + "/reference", copy = options.folder + "/copy";
  const std::string from = reference + (options.to == "model" ? "" : ".gguf");
  ODMOE_RETURN_IF_ERROR(TimeConversion(options, source, from, 0).status());
  const uint64_t bytes = BytesBelow(from);
  std::printf("%llu bytes\n", static_cast<unsigned long long>(bytes));
  std::vector<double> copied, other;
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
                             TimeConversion(options, source, model, options.concurrency[i]));
      converted[i].push_back(seconds);
      ratios[i].push_back(copy_seconds / seconds);
    }
    ODMOE_RETURN_IF_ERROR(Clear(model));
    if (options.against.empty()) continue;
    ODMOE_ASSIGN_OR_RETURN(other.emplace_back(),
                           TimeCommand(absl::StrCat("export OUT='", model, "'; (", options.against,
                                                    ") && sync")));
    ODMOE_RETURN_IF_ERROR(Clear(model));
  }
  PrintRow("cp -r and sync", copied, bytes);
  if (!other.empty()) PrintRow("the other, sync", other, bytes);
  for (size_t i = 0; i < options.concurrency.size(); ++i) {
    PrintRow(absl::StrCat("concurrency ", options.concurrency[i]).c_str(), converted[i], bytes);
    const auto [least, most] = std::minmax_element(ratios[i].begin(), ratios[i].end());
    std::printf("%-18s median %.2f (%.2f to %.2f) of cp's speed, paired\n", "", Median(ratios[i]),
                *least, *most);
  }
  std::printf("resident at most   %s\n", FormatBytes(PeakRssBytes()).c_str());
  return Clear(from);
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    int number = 0;
    const bool is_number = absl::SimpleAtoi(value, &number);
    if (name == "--folder") options.folder = value;
    else if (name == "--source") options.source = value;
    else if (name == "--to") options.to = value;
    else if (name == "--outtype") options.outtype = value;
    else if (name == "--against") options.against = value;
    else if (name == "--stop-gb" && is_number)
      options.stop_bytes = uint64_t(number) * 1'000'000'000;
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
                 "         [--to model|model.gguf] [--outtype TYPE] [--layers N] [--experts N]\n"
                 "         [--dim N] [--ffn N] [--rounds N] [--concurrency N]\n"
                 "         [--against 'COMMAND that writes $OUT'] [--stop-gb N]\n");
    return 2;
  }
  const absl::Status status = odmoe::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
