// odmoe jobs submit|list|watch|cancel
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/console/table.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/jobs/job_view.h"
#include "clients/cli/json_output.h"
#include "clients/cpp/remote_job_queue.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string endpoint;
  std::string database;
  ConvertSpec spec;
  std::string request_id;
  std::string id;
  int limit = 20;
  OutputOptions output;
};

// $XDG_STATE_HOME/odmoe/jobs.db, as the base directory specification has it.
absl::StatusOr<std::string> DefaultDatabase() {
  fs::path state;
  if (const char* home = std::getenv("XDG_STATE_HOME"); home != nullptr && *home == '/') {
    state = home;
  } else if (const char* user = std::getenv("HOME"); user != nullptr && *user != '\0') {
    state = fs::path(user) / ".local" / "state";
  } else {
    return UsageError("neither XDG_STATE_HOME nor HOME is set; give --database FILE");
  }
  return (state / "odmoe" / "jobs.db").string();
}

// `workers` of this process, where it is the queue; none to look only.
absl::StatusOr<std::unique_ptr<JobQueue>> OpenQueue(const Options& options, int workers) {
  if (!options.endpoint.empty()) return ConnectJobQueue(options.endpoint);
  LocalJobQueueOptions local;
  local.workers = workers;
  local.database_path = options.database;
  if (local.database_path.empty()) {
    ODMOE_ASSIGN_OR_RETURN(local.database_path, DefaultDatabase());
    const fs::path folder = fs::path(local.database_path).parent_path();
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) {
      return absl::PermissionDeniedError(
          absl::StrCat("cannot create ", folder.string(), ": ", error.message()));
    }
  }
  return OpenLocalJobQueue(local);
}

void ShowOne(const Job& job, const Options& options, Console& console) {
  if (options.output.json) {
    console.OutLine(DumpJson(JobToJson(job)));
  } else {
    console.OutLine(absl::StrCat(job.id, " ", JobStateName(job.state)));
  }
}

absl::Status Watch(JobQueue& queue, const Options& options, const SignalScope& signals,
                   Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const Job job, ShowJob(queue, options.id, console, options.output.quiet,
                                                signals.cancellation()));
  ODMOE_RETURN_IF_ERROR(JobOutcome(job));
  ShowOne(job, options, console);
  return absl::OkStatus();
}

// With a service it queues and returns. Without one nobody else would run the job, so this process
// does, to its end; stopped before, the job is run again by the next submit.
absl::Status RunSubmit(Options options, Console& console) {
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 1));
  options.spec.source = AbsolutePath(options.spec.source);
  options.spec.destination = AbsolutePath(options.spec.destination);
  ODMOE_ASSIGN_OR_RETURN(const Job job, queue->Submit(options.spec, options.request_id));
  if (!options.endpoint.empty()) {
    ShowOne(job, options, console);
    return absl::OkStatus();
  }
  if (!options.output.quiet) console.ErrLine(absl::StrCat("job ", job.id));
  options.id = job.id;
  return Watch(*queue, options, signals, console);
}

absl::Status RunWatch(const Options& options, Console& console) {
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  return Watch(*queue, options, signals, console);
}

absl::Status RunCancel(const Options& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  ODMOE_ASSIGN_OR_RETURN(const Job job, queue->Cancel(options.id));
  ShowOne(job, options, console);
  return absl::OkStatus();
}

std::string Progress(const Job& job) {
  const JobProgress& progress = job.progress;
  if (progress.step_number == 0) return "";
  const double share =
      progress.total_bytes == 0 ? 0.0 : double(progress.done_bytes) / double(progress.total_bytes);
  return absl::StrFormat("%d/%d %s %.0f%%", progress.step_number, progress.step_count,
                         progress.step, 100.0 * share);
}

absl::Status RunList(const Options& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<Job> jobs, queue->List(options.limit));
  if (options.output.json) {
    Json list = Json::array();
    for (const Job& job : jobs) list.push_back(JobToJson(job));
    console.OutLine(DumpJson(Json{{"jobs", std::move(list)}}));
    return absl::OkStatus();
  }
  Table table({{"id"}, {"state"}, {"progress"}, {"created"}, {"destination"}, {"error"}});
  for (const Job& job : jobs) {
    table.AddRow({job.id, JobStateName(job.state), Progress(job),
                  absl::FormatTime("%Y-%m-%d %H:%M:%S", job.created, absl::LocalTimeZone()),
                  job.spec.destination, job.error});
  }
  console.Out(table.ToString());
  return absl::OkStatus();
}

CLI::App* AddJobCommand(CLI::App& jobs, Invocation& invocation, const std::string& name,
                        const std::string& description,
                        const std::shared_ptr<Options>& options,
                        absl::Status (*run)(const Options&, Console&)) {
  CLI::App* command = jobs.add_subcommand(name, description);
  CLI::Option* endpoint =
      AddEndpointOption(*command, options->endpoint, "The conversion service to ask");
  command
      ->add_option("--database", options->database,
                   "Without an endpoint: the file of this user's jobs "
                   "[$XDG_STATE_HOME/odmoe/jobs.db]")
      ->type_name("FILE")
      ->excludes(endpoint);
  AddOutputOptions(*command, options->output);
  command->callback([&invocation, options, run] {
    invocation.run = [options, run](Console& console) { return run(*options, console); };
  });
  return command;
}

void AddSubmit(CLI::App& jobs, Invocation& invocation, const std::shared_ptr<Options>& options) {
  CLI::App* submit = AddJobCommand(
      jobs, invocation, "submit", "Queue a conversion; without an endpoint, run it here", options,
      [](const Options& o, Console& console) { return RunSubmit(o, console); });
  submit->add_option("source", options->spec.source, "Hugging Face directory or GGUF file")
      ->required()
      ->type_name("SRC");
  submit
      ->add_option("-o,--output", options->spec.destination,
                   "What to make: a GGUF file where it ends in .gguf, else a model directory")
      ->required()
      ->type_name("DST");
  submit->add_option("--outtype", options->spec.outtype, "Number format of the weights")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0"}));
  submit
      ->add_option("--request-id", options->request_id,
                   "Submitting again with the same one gives the first one's job")
      ->type_name("ID");
}

}  // namespace

void AddJobsCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* jobs = app.add_subcommand("jobs", "Conversion jobs");
  jobs->require_subcommand(1);
  AddSubmit(*jobs, invocation, options);
  AddJobCommand(*jobs, invocation, "list", "Jobs, newest first", options, RunList)
      ->add_option("--limit", options->limit, "How many at most")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  AddJobCommand(*jobs, invocation, "watch", "Show a job's progress until it ends", options, RunWatch)
      ->add_option("id", options->id, "The job's id")
      ->required()
      ->type_name("JOB");
  AddJobCommand(*jobs, invocation, "cancel", "Stop a job and remove its partial output", options,
                RunCancel)
      ->add_option("id", options->id, "The job's id")
      ->required()
      ->type_name("JOB");
  jobs->footer(
      "A job that failed makes watch fail with its error; Ctrl-C ends the watching, not the job.\n"
      "Examples:\n"
      "  odmoe jobs submit /models/Kimi-K2 -o /models/kimi --endpoint 127.0.0.1:9003\n"
      "  odmoe jobs watch JOB --endpoint 127.0.0.1:9003\n"
      "  odmoe jobs list --json\n"
      "  odmoe jobs cancel JOB");
}

}  // namespace odmoe
