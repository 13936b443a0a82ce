// Client channels, made one way everywhere.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace odmoe {

// A channel to "HOST:PORT" or "unix:/path" with odmoe's message limits; connects when first used.
// INVALID_ARGUMENT: no such form.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& endpoint);

// Sets the call's deadline, unless it is InfiniteFuture.
void SetDeadline(grpc::ClientContext& context, absl::Time deadline);

}  // namespace odmoe
