// Client channels, made one way everywhere.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace odmoe {

// What a channel carries mostly.
enum class ChannelUse {
  kCalls,
  kBulk,  // megabytes, received: reads more of the socket at once
};

// A channel to "HOST:PORT" or "unix:/path" with odmoe's message limits; connects when first used.
// INVALID_ARGUMENT: no such form.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& endpoint,
                                                           ChannelUse use = ChannelUse::kCalls);

// Sets the call's deadline, unless it is InfiniteFuture.
void SetDeadline(grpc::ClientContext& context, absl::Time deadline);

}  // namespace odmoe
