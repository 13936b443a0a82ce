// odmoe bitnet inspect|convert|kernels: models whose weights are -1, 0 and 1 times a scale
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands/bitnet_validation.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/commands/conversion_progress.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/console/table.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "converter/bitnet/kernel_header.h"
#include "converter/bitnet/ternary_report.h"
#include "converter/convert.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct BitnetArguments {
  ConvertOptions convert;
  bool validate = false;
  bool force = false;
  std::string config;
  std::string kind = "tl2";
  OutputOptions output;
};

double Share(int64_t part, const TernaryShares& shares) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, shares.count()));
}

std::string Percent(int64_t part, const TernaryShares& shares) {
  return absl::StrFormat("%.1f%%", 100.0 * Share(part, shares));
}

const char* StorageOf(const TernaryRow& row) {
  if (!row.packed) return "online (rounded)";
  return row.scale_divides ? "packed, scale divides" : "packed, scale multiplies";
}

Json ToJson(const TernaryReport& report) {
  Json json;
  json["architecture"] = report.architecture;
  for (const TernaryRow& row : report.rows) {
    Json entry;
    entry["name"] = row.name;
    entry["shape"] = {row.rows, row.columns};
    entry["stored"] = row.packed ? "packed" : "online";
    entry["scale_divides"] = row.scale_divides;
    entry["scale"] = row.shares.scale;
    entry["minus"] = Share(row.shares.minus, row.shares);
    entry["zero"] = Share(row.shares.zeros, row.shares);
    entry["plus"] = Share(row.shares.plus, row.shares);
    entry["cosine"] = row.shares.cosine;
    json["tensors"].push_back(std::move(entry));
  }
  return json;
}

std::string ToTable(const TernaryReport& report) {
  using Align = Table::Align;
  Table table({{"tensor"},
               {"shape"},
               {"stored"},
               {"scale", Align::kRight},
               {"-1", Align::kRight},
               {"0", Align::kRight},
               {"+1", Align::kRight},
               {"cosine", Align::kRight}});
  const auto add = [&](const std::string& name, const std::string& shape, const char* stored,
                       const TernaryShares& shares, bool total) {
    table.AddRow({name, shape, stored, total ? "" : absl::StrFormat("%.6g", shares.scale),
                  Percent(shares.minus, shares), Percent(shares.zeros, shares),
                  Percent(shares.plus, shares),
                  total ? "" : absl::StrFormat("%.4f", shares.cosine)});
  };
  for (const TernaryRow& row : report.rows) {
    add(row.name, absl::StrCat(row.rows, " x ", row.columns), StorageOf(row), row.shares, false);
  }
  add("all", "", "", report.Total(), true);
  return table.ToString();
}

absl::Status Inspect(const BitnetArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const TernaryReport report,
                         ReportTernary(PosixFileSystem(), options.convert.source));
  if (options.output.json) {
    console.OutLine(DumpJson(ToJson(report)));
  } else {
    console.Out(absl::StrCat(report.architecture, "\n", ToTable(report)));
  }
  return absl::OkStatus();
}

absl::Status CheckDestination(const BitnetArguments& options) {
  const std::string& path = options.convert.destination;
  std::error_code error;
  if (!fs::exists(path, error) || HasUnfinishedConversion(PosixFileSystem(), path)) {
    return absl::OkStatus();
  }
  if (!absl::EndsWith(path, ".gguf") || fs::is_directory(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists; give another -o"));
  }
  if (options.force) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(path, " exists; give another -o, or --force to replace it"));
}

absl::Status RunPlan(const BitnetArguments& options, const ConvertPlan& plan,
                     const Cancellation& cancellation, Console& console) {
  ProgressDisplay display(console, options.output.quiet);
  const absl::Status converted = RunConversion(
      plan, &cancellation,
      [&](const ConvertProgress& progress) { display.Update(ToProgressState(progress)); });
  display.Finish();
  return converted;
}

void PrintResult(const BitnetArguments& options, uint64_t bytes, const TernaryReport& report,
                 const std::optional<BitnetValidation>& validation, Console& console) {
  if (options.output.json) {
    Json json = ToJson(report);
    json["destination"] = options.convert.destination;
    json["bytes"] = bytes;
    if (validation) json["validated_weights"] = validation->weights;
    if (validation) json["generated"] = validation->text;
    console.OutLine(DumpJson(json));
    return;
  }
  if (options.output.quiet) return;
  if (validation) {
    console.ErrLine(absl::StrFormat(
        "validated: %s as planned, %d ternary weights as in the checkpoint; %s",
        FormatBytes(validation->bytes), validation->weights, validation->generation));
  }
  console.ErrLine(absl::StrCat(options.convert.destination, ": ", FormatBytes(bytes)));
}

absl::Status Convert(const BitnetArguments& options, Console& console) {
  ODMOE_RETURN_IF_ERROR(CheckDestination(options));
  if (options.validate && !absl::EndsWith(options.convert.destination, ".gguf")) {
    return UsageError("--validate reads a GGUF file, and the output does not end in .gguf");
  }
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, PlanConversion(options.convert));
  TernaryReport report;
  // Weights that are forced have no report: the checkpoint does not say that they are ternary.
  if (!options.convert.force_ternary) {
    ODMOE_ASSIGN_OR_RETURN(report, ReportTernary(PosixFileSystem(), options.convert.source));
    if (!options.output.quiet && !options.output.json) console.Out(ToTable(report));
  }
  ODMOE_RETURN_IF_ERROR(RunPlan(options, plan, signals.cancellation(), console));
  std::optional<BitnetValidation> validation;
  if (options.validate) {
    ODMOE_ASSIGN_OR_RETURN(validation,
                           ValidateBitnetFile(plan, report, options.convert.kernel_config));
  }
  PrintResult(options, plan.step_bytes.back(), report, validation, console);
  return absl::OkStatus();
}

absl::Status WriteText(const std::string& path, const std::string& text, bool force) {
  std::error_code error;
  if (!force && fs::exists(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists; --force replaces it"));
  }
  ODMOE_ASSIGN_OR_RETURN(const auto file, AtomicFile::Create(PosixFileSystem(), path));
  ODMOE_RETURN_IF_ERROR(file->file().Append(
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size())));
  return file->Commit();
}

absl::Status Kernels(const BitnetArguments& options, Console& console) {
  constexpr uint64_t kMaxConfigBytes = 16 * kMiB;
  ODMOE_ASSIGN_OR_RETURN(const std::string text,
                         ReadWholeFile(PosixFileSystem(), options.config, kMaxConfigBytes));
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, options.config));
  ODMOE_ASSIGN_OR_RETURN(
      const KernelConfig kernels,
      ChooseKernelConfig(options.kind == "tl1" ? DType::kTL1 : DType::kTL2, json, options.config));
  const fs::path folder(options.convert.destination);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make ", folder.string(), ": ", error.message()));
  }
  ODMOE_RETURN_IF_ERROR(
      WriteText(folder / "kernel_config.ini", EncodeKernelIni(kernels), options.force));
  ODMOE_RETURN_IF_ERROR(
      WriteText(folder / "bitnet-lut-kernels.h", MakeKernelHeader(kernels), options.force));
  if (options.output.json) {
    Json result;
    result["kernels"] = KernelHash(kernels);
    result["kind"] = options.kind;
    for (const KernelShape& s : kernels.shapes) {
      result["shapes"].push_back({{"m", s.rows},
                                  {"k", s.columns},
                                  {"bm", s.block_rows},
                                  {"bk", s.block_columns},
                                  {"bmm", s.lane_rows}});
    }
    console.OutLine(DumpJson(result));
  } else if (!options.output.quiet) {
    console.Out(EncodeKernelIni(kernels));
    console.ErrLine(absl::StrCat("kernel_config.ini and bitnet-lut-kernels.h in ", folder.string(),
                                 "; weights for them: odmoe bitnet convert DIR -o "
                                 "OUT.gguf --outtype ",
                                 options.kind, " --kernels ",
                                 (folder / "kernel_config.ini").string()));
  }
  return absl::OkStatus();
}

void AddInspect(CLI::App& bitnet, Invocation& invocation) {
  auto options = std::make_shared<BitnetArguments>();
  CLI::App* command = bitnet.add_subcommand(
      "inspect", "How a checkpoint stores its ternary weights, and how many are -1, 0 and 1");
  command->add_option("source", options->convert.source, "Hugging Face directory")
      ->required()
      ->type_name("DIR");
  AddOutputOptions(*command, options->output);
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Inspect(*options, console); };
  });
}

void AddConvert(CLI::App& bitnet, Invocation& invocation) {
  auto options = std::make_shared<BitnetArguments>();
  ConvertOptions& convert = options->convert;
  convert.outtype = "tq2_0";
  CLI::App* command = bitnet.add_subcommand(
      "convert", "Convert a checkpoint, say what its weights are, and check what was made");
  command->add_option("source", convert.source, "Hugging Face directory")
      ->required()
      ->type_name("DIR");
  command->add_option("-o,--output", convert.destination, "OUT.gguf, or a model directory to make")
      ->required()
      ->type_name("OUT");
  command->add_option("--outtype", convert.outtype, "Format of the ternary weights")
      ->type_name("TYPE")
      ->capture_default_str()
      ->check(
          CLI::IsMember({"tq1_0", "tq2_0", "i2_s", "tl1", "tl2", "q8_0", "f16", "bf16", "f32"}));
  command
      ->add_option("--kernels", convert.kernel_config,
                   "Of tl1 and tl2: the kernel_config.ini that odmoe bitnet kernels wrote")
      ->type_name("FILE");
  command->add_flag("--force-ternary", convert.force_ternary,
                    "Round weights that are not ternary, whatever becomes of the model");
  command->add_flag("--validate", options->validate,
                    "Read the file back, compare sizes and weights, load it and generate");
  command
      ->add_option("--pre-tokenizer", convert.pre_tokenizer,
                   "GGUF's name of how the checkpoint splits words, where it is not recognized")
      ->type_name("NAME");
  command->add_option("--concurrency", convert.concurrency, "Workers; 0: one a core")
      ->check(CLI::Range(0, 64))
      ->type_name("N");
  command->add_flag("--force", options->force, "Replace an existing file");
  command->add_flag("--restart", convert.restart,
                    "Begin anew instead of going on with an interrupted conversion");
  AddOutputOptions(*command, options->output);
  command->footer("Example:\n  odmoe bitnet convert bitnet-b1.58-2B-4T -o bitnet.gguf --validate");
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Convert(*options, console); };
  });
}

void AddKernels(CLI::App& bitnet, Invocation& invocation) {
  auto options = std::make_shared<BitnetArguments>();
  CLI::App* command = bitnet.add_subcommand(
      "kernels", "Write kernel_config.ini and bitnet-lut-kernels.h for BitNet's runtime");
  command->add_option("--config", options->config, "The model's config.json")
      ->required()
      ->type_name("FILE");
  command->add_option("--kind", options->kind, "tl1 for ARM, tl2 for x86")
      ->capture_default_str()
      ->check(CLI::IsMember({"tl1", "tl2"}));
  command->add_option("-o,--output", options->convert.destination, "Folder to write them to")
      ->required()
      ->type_name("DIR");
  command->add_flag("--force", options->force, "Replace existing files");
  AddOutputOptions(*command, options->output);
  command->callback([&invocation, options] {
    invocation.run = [options](Console& console) { return Kernels(*options, console); };
  });
}

}  // namespace

void AddBitnetCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* bitnet =
      app.add_subcommand("bitnet", "Models whose weights are -1, 0 and 1 times a scale");
  bitnet->require_subcommand(1);
  AddInspect(*bitnet, invocation);
  AddConvert(*bitnet, invocation);
  AddKernels(*bitnet, invocation);
}

}  // namespace odmoe
