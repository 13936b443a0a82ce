#include "tests/end_to_end/deployment.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

std::string ModelRoot() { return std::filesystem::path(TinyKimi()).parent_path(); }

}  // namespace

void Deployment::StartStore() {
  store_ = StartService("odmoe-expert-storage",
                        {"--listen", absl::StrCat("unix:", directory_ / "store.sock"), "--root",
                         ModelRoot(), "--socket-dir", directory_.path(), "--model", TinyKimi(),
                         "--expert-budget", expert_budget_});
}

void Deployment::StartInference() {
  inference_ = StartService("odmoe-inference", {"--listen", "127.0.0.1:0", "--root", ModelRoot(),
                                                "--expert-store", store_.endpoint, "--model",
                                                TinyKimi()});
}

void Deployment::StartGateway() {
  gateway_ = StartService("odmoe-gateway",
                          {"--listen", "127.0.0.1:0", "--inference", inference_.endpoint});
}

}  // namespace odmoe
