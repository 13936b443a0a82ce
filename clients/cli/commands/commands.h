// The commands; each file of this folder adds one. When a command line names it, it sets the
// invocation's `run`.
#pragma once

namespace CLI {
class App;
}

namespace odmoe {

struct Invocation;

void AddConvertCommand(CLI::App& app, Invocation& invocation);
void AddBitnetCommand(CLI::App& app, Invocation& invocation);
void AddQuantizeCommand(CLI::App& app, Invocation& invocation);
void AddInspectCommand(CLI::App& app, Invocation& invocation);
void AddVerifyCommand(CLI::App& app, Invocation& invocation);
void AddMergeCommand(CLI::App& app, Invocation& invocation);
void AddToyCommand(CLI::App& app, Invocation& invocation);
void AddTokenizeCommand(CLI::App& app, Invocation& invocation);
void AddScoreCommand(CLI::App& app, Invocation& invocation);
void AddEvaluateCommand(CLI::App& app, Invocation& invocation);
void AddImatrixCommand(CLI::App& app, Invocation& invocation);
void AddGenerateCommand(CLI::App& app, Invocation& invocation);
void AddServeCommand(CLI::App& app, Invocation& invocation);
void AddLoadCommand(CLI::App& app, Invocation& invocation);
void AddUnloadCommand(CLI::App& app, Invocation& invocation);
void AddResizeCommand(CLI::App& app, Invocation& invocation);
void AddJobsCommand(CLI::App& app, Invocation& invocation);
void AddUploadCommand(CLI::App& app, Invocation& invocation);
void AddDownloadCommand(CLI::App& app, Invocation& invocation);
void AddReplayCommand(CLI::App& app, Invocation& invocation);
void AddStatsCommand(CLI::App& app, Invocation& invocation);

}  // namespace odmoe
