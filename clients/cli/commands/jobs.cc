// odmoe jobs submit|list|show|watch|pause|resume|cancel|retry|delete
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/commands/commands.h"
#include "clients/cli/console/signals.h"
#include "clients/cli/console/table.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/jobs/convert_flags.h"
#include "clients/cli/jobs/job_view.h"
#include "clients/cli/json_output.h"
#include "clients/cli/model/model_options.h"
#include "clients/cpp/remote_job_queue.h"
#include "services/conversion/jobs/job_spec_json.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "services/conversion/jobs/step_paths.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

struct JobsArguments {
  std::string endpoint;
  std::string database;
  ConvertSpec convert;
  int32_t priority = 0;
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
absl::StatusOr<std::unique_ptr<JobQueue>> OpenQueue(const JobsArguments& options, int workers) {
  if (!options.endpoint.empty()) return ConnectJobQueue(options.endpoint);
  LocalJobQueueOptions local;
  local.workers = workers;
  local.open_model = [](const std::string& path) -> absl::StatusOr<std::shared_ptr<LanguageModel>> {
    ModelOptions model;
    model.model = path;
    ODMOE_ASSIGN_OR_RETURN(OpenedModel opened, OpenModel(model));
    return std::shared_ptr<LanguageModel>(std::move(opened.model));
  };
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

void ShowOne(const Job& job, const JobsArguments& options, Console& console) {
  if (options.output.json) {
    console.OutLine(DumpJson(JobToJson(job)));
  } else {
    console.OutLine(absl::StrCat(job.id, " ", JobStateName(job.state)));
  }
}

// With --json each state is a line, the last one too.
absl::Status Watch(JobQueue& queue, const JobsArguments& options, const SignalScope& signals,
                   Console& console) {
  std::function<void(const Job&)> on_change;
  if (options.output.json) {
    on_change = [&](const Job& job) { console.OutLine(DumpJson(JobToJson(job))); };
  }
  ODMOE_ASSIGN_OR_RETURN(const Job job, ShowJob(queue, options.id, console, options.output.quiet,
                                                signals.cancellation(), on_change));
  ODMOE_RETURN_IF_ERROR(JobOutcome(job));
  if (!options.output.json) ShowOne(job, options, console);
  return absl::OkStatus();
}

// A conversion by its flags, or a job file.
absl::StatusOr<JobSpec> SpecOf(const JobsArguments& options, Console& console) {
  JobSpec spec;
  if (!options.convert.destination.empty()) {
    spec.steps = {WithAbsolutePaths(options.convert)};
    spec.priority = options.priority;
    return spec;
  }
  const std::string& file = options.convert.source;
  if (file != "-" && !absl::EndsWith(file, ".json")) {
    return UsageError(absl::StrCat("to convert ", file, ", give -o DST; a job file ends in .json"));
  }
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadText({.file = file}, console));
  ODMOE_ASSIGN_OR_RETURN(spec, ParseJobSpec(text, file));
  if (options.priority != 0) spec.priority = options.priority;
  for (StepSpec& step : spec.steps) {
    for (const StepPath& path : PathsOf(step)) *path.path = AbsolutePath(*path.path);
  }
  return spec;
}

// With a service it queues and returns. Without one nobody else would run the job, so this process
// does, to its end; stopped before, the job goes on with the next submit.
absl::Status RunSubmit(JobsArguments options, Console& console) {
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const JobSpec spec, SpecOf(options, console));
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 1));
  ODMOE_ASSIGN_OR_RETURN(const Job job, queue->Submit(spec, options.request_id));
  if (!options.endpoint.empty()) {
    ShowOne(job, options, console);
    return absl::OkStatus();
  }
  if (!options.output.quiet) console.ErrLine(absl::StrCat("job ", job.id));
  options.id = job.id;
  ODMOE_ASSIGN_OR_RETURN(const Job ended,
                         ShowJob(*queue, job.id, console, options.output.quiet,
                                 signals.cancellation()));
  ODMOE_RETURN_IF_ERROR(JobOutcome(ended));
  ShowOne(ended, options, console);
  return absl::OkStatus();
}

absl::Status RunWatch(const JobsArguments& options, Console& console) {
  const SignalScope signals;
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  return Watch(*queue, options, signals, console);
}

absl::Status RunShow(const JobsArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  ODMOE_ASSIGN_OR_RETURN(const Job job, queue->Get(options.id));
  console.OutLine(options.output.json ? DumpJson(JobToJson(job)) : DescribeJob(job));
  return absl::OkStatus();
}

template <absl::StatusOr<Job> (JobQueue::*kChange)(absl::string_view)>
absl::Status RunChange(const JobsArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  ODMOE_ASSIGN_OR_RETURN(const Job job, (queue.get()->*kChange)(options.id));
  ShowOne(job, options, console);
  return absl::OkStatus();
}

absl::Status RunDelete(const JobsArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  ODMOE_RETURN_IF_ERROR(queue->Delete(options.id));
  if (options.output.json) {
    console.OutLine(DumpJson(Json{{"id", options.id}, {"state", "deleted"}}));
  } else {
    console.OutLine(absl::StrCat(options.id, " deleted"));
  }
  return absl::OkStatus();
}

absl::Status RunList(const JobsArguments& options, Console& console) {
  ODMOE_ASSIGN_OR_RETURN(const auto queue, OpenQueue(options, 0));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<Job> jobs, queue->List(options.limit));
  if (options.output.json) {
    Json list = Json::array();
    for (const Job& job : jobs) list.push_back(JobToJson(job));
    console.OutLine(DumpJson(Json{{"jobs", std::move(list)}}));
    return absl::OkStatus();
  }
  Table table(
      {{"id"}, {"state"}, {"priority"}, {"progress"}, {"created"}, {"destination"}, {"error"}});
  for (const Job& job : jobs) {
    table.AddRow({job.id, JobStateName(job.state), absl::StrCat(job.spec.priority),
                  BriefProgress(job),
                  absl::FormatTime("%Y-%m-%d %H:%M:%S", job.created, absl::LocalTimeZone()),
                  JobTarget(job), job.error});
  }
  console.Out(table.ToString());
  return absl::OkStatus();
}

CLI::App* AddJobCommand(CLI::App& jobs, Invocation& invocation, const std::string& name,
                        const std::string& description,
                        const std::shared_ptr<JobsArguments>& options,
                        absl::Status (*run)(const JobsArguments&, Console&)) {
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

void AddSubmit(CLI::App& jobs, Invocation& invocation,
               const std::shared_ptr<JobsArguments>& options) {
  CLI::App* submit = AddJobCommand(
      jobs, invocation, "submit", "Queue a job; without an endpoint, run it here", options,
      [](const JobsArguments& o, Console& console) { return RunSubmit(o, console); });
  submit
      ->add_option("source", options->convert.source,
                   "Hugging Face directory or GGUF file; or a job file, FILE.json or - for "
                   "standard input, without -o")
      ->required()
      ->type_name("SRC");
  submit
      ->add_option("-o,--output", options->convert.destination,
                   "What to make: a GGUF file where it ends in .gguf, else a model directory")
      ->type_name("DST");
  AddConvertFlags(*submit, options->convert);
  submit
      ->add_option("--priority", options->priority,
                   "Higher ones start first; equal ones in order of submission")
      ->type_name("N")
      ->check(CLI::Range(-JobSpec::kMaxPriority, JobSpec::kMaxPriority));
  submit
      ->add_option("--request-id", options->request_id,
                   "Submitting again with the same one gives the first one's job")
      ->type_name("ID");
  submit->footer(
      "A job file has several steps; each may read what an earlier one makes:\n"
      "  {\"priority\": 5,\n"
      "   \"steps\": [\n"
      "     {\"convert\": {\"source\": \"Kimi-K2\", \"destination\": \"kimi.gguf\",\n"
      "                  \"outtype\": \"q8_0\"}},\n"
      "     {\"convert\": {\"source\": \"kimi.gguf\", \"destination\": \"kimi\"}},\n"
      "     {\"verify\": {\"source\": \"kimi\"}},\n"
      "     {\"quantize\": {\"source\": \"kimi\", \"destination\": \"smaller\", \"batch\": true,\n"
      "                   \"types\": [\"q4_k_m\", \"q6_k\"], \"text\": \"chapter.txt\"}},\n"
      "     {\"evaluate\": {\"model\": \"kimi\", \"text\": \"chapter.txt\",\n"
      "                   \"base_model\": \"kimi-bf16\", \"chunk_tokens\": 512}}]}\n"
      "Examples:\n"
      "  odmoe jobs submit /models/Kimi-K2 -o /models/kimi --endpoint 127.0.0.1:9003\n"
      "  odmoe jobs submit pipeline.json --priority 10 --request-id nightly-7");
}

// A verb on one job.
void AddVerb(CLI::App& jobs, Invocation& invocation, const std::shared_ptr<JobsArguments>& options,
             const std::string& name, const std::string& description,
             absl::Status (*run)(const JobsArguments&, Console&)) {
  AddJobCommand(jobs, invocation, name, description, options, run)
      ->add_option("id", options->id, "The job's id")
      ->required()
      ->type_name("JOB");
}

}  // namespace

void AddJobsCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<JobsArguments>();
  CLI::App* jobs = app.add_subcommand("jobs", "Conversion jobs");
  jobs->require_subcommand(1);
  AddSubmit(*jobs, invocation, options);
  AddJobCommand(*jobs, invocation, "list", "Jobs, newest first", options, RunList)
      ->add_option("--limit", options->limit, "How many at most")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  AddVerb(*jobs, invocation, options, "show", "A job's steps, how far they are and their results",
          RunShow);
  AddVerb(*jobs, invocation, options, "watch",
          "Show a job's progress until it ends; with --json each of its states as a line",
          RunWatch);
  AddVerb(*jobs, invocation, options, "pause",
          "Stop a job and keep its partial output, to go on from with resume",
          RunChange<&JobQueue::Pause>);
  AddVerb(*jobs, invocation, options, "resume", "Put a paused job back in the queue",
          RunChange<&JobQueue::Resume>);
  AddVerb(*jobs, invocation, options, "cancel", "Stop a job and remove its partial output",
          RunChange<&JobQueue::Cancel>);
  AddVerb(*jobs, invocation, options, "retry",
          "Run a failed or cancelled job again, from its first step that is not done",
          RunChange<&JobQueue::Retry>);
  AddVerb(*jobs, invocation, options, "delete", "Forget a job that has ended; its output stays",
          RunDelete);
  jobs->footer(
      "A job that failed makes watch fail with its error; Ctrl-C ends the watching, not the job, "
      "and\n"
      "a watch whose connection breaks goes on where it was.\n"
      "Examples:\n"
      "  odmoe jobs submit /models/Kimi-K2 -o /models/kimi --endpoint 127.0.0.1:9003\n"
      "  odmoe jobs submit pipeline.json\n"
      "  odmoe jobs watch JOB --endpoint 127.0.0.1:9003\n"
      "  odmoe jobs list --json\n"
      "  odmoe jobs pause JOB");
}

}  // namespace odmoe
