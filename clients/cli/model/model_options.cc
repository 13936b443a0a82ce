#include "clients/cli/model/model_options.h"

#include "clients/cli/commands/command.h"
#include "services/core/experts/budget.h"
#include "services/core/experts/remote_mode.h"
#include "services/core/experts/source_kind.h"
#include "services/expert_storage/policy/make_policy.h"

namespace odmoe {
namespace {

constexpr char kGroup[] = "Model in this process";

}  // namespace

void AddLocalModelOptions(CLI::App& command, ModelOptions& options) {
  command.add_option("model", options.model, "Model directory or GGUF file")
      ->required()
      ->type_name("MODEL");
  command
      .add_option("--expert-budget", options.expert_budget,
                  "Memory for experts, a hard bound: a share of them, a size, or auto")
      ->type_name("25%|1.5GiB|auto")
      ->group(kGroup)
      ->check(CheckedBy(ParseBudget));
  command
      .add_option("--source", options.source,
                  "How experts are read: direct (O_DIRECT, past the page cache), mmap, or auto")
      ->type_name("auto|direct|mmap")
      ->group(kGroup)
      ->check(CheckedBy(ParseSourceKind));
  command
      .add_option("--also", options.also,
                  "Another directory with some of the model's files or all, on another disk say: "
                  "experts are read where least is under way. Again for more")
      ->type_name("DIR")
      ->group(kGroup)
      ->check(CLI::ExistingDirectory)
      ->allow_extra_args(false);
  command
      .add_option("--policy", options.policy,
                  "Which expert to evict; odmoe replay compares the policies")
      ->type_name("default|lru|lfu|lfru|next-use")
      ->group(kGroup)
      ->check(CheckedBy(ParseEvictionPolicy));
  command.add_flag("--no-prefetch", options.no_prefetch, "Do not predict and prefetch experts")
      ->group(kGroup);
  command.add_option("--threads", options.threads, "Compute threads; 0: as many as there are CPUs")
      ->type_name("N")
      ->group(kGroup)
      ->check(CLI::Range(0, 4096));
  command
      .add_option("--context", options.context_length,
                  "Tokens of prompt and continuation; 0: what the model was trained for")
      ->type_name("N")
      ->group(kGroup)
      ->check(CLI::Range(0, 1 << 30));
  command
      .add_option(
          "--expert-store", options.expert_store,
          "Use the experts of a store on this host, in its shared memory; the model must be "
          "open there")
      ->type_name("ENDPOINT")
      ->group(kGroup);
  command
      .add_option("--tenant", options.tenant,
                  "On whose account the store of --expert-store serves, by the tenants it was "
                  "started with")
      ->type_name("NAME")
      ->group(kGroup);
  command
      .add_option("--remote-expert-store", options.remote_expert_store,
                  "Stream experts from a store on any host into a budget here")
      ->type_name("ENDPOINT")
      ->group(kGroup);
  command
      .add_option("--remote-experts", options.remote_experts,
                  "Let a store on another host help with experts that are not resident here; see "
                  "--remote-mode")
      ->type_name("ENDPOINT")
      ->group(kGroup);
  command
      .add_option("--remote-mode", options.remote_mode,
                  "fetch: stream those experts here; execute: have them computed there (the store "
                  "needs --compute-threads); auto: whichever has cost less. The output is the same")
      ->type_name("fetch|execute|auto")
      ->group(kGroup)
      ->check(CheckedBy(ParseRemoteMode));
}

void AddModelOptions(CLI::App& command, ModelOptions& options) {
  AddLocalModelOptions(command, options);
  AddEndpointOption(command, options.endpoint,
                    "Use this inference service instead of this process; MODEL is then the name of "
                    "the model loaded there, or its directory");
}

}  // namespace odmoe
