#include "services/core/rpc/channel.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace odmoe {
namespace {

// The buffers a socket is read into. Small enough to be in the cache still when they are copied on:
// a tenth less of the processor's time than with 1 MiB.
constexpr int kBulkReadBytes = 128 << 10;
// On its way before it is asked for. gRPC's own estimate of the path is turned off: on a fast one
// it had four streams hold 200 MiB. Without it what a connection has under way is about a message
// for each of its streams.
constexpr int kBulkLookaheadBytes = 4 << 20;
// With the estimate goes the size of frames, 16 KiB at first. A chunk of ReadExpert in one.
constexpr int kBulkFrameBytes = (2 << 20) + 64;

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& endpoint,
                                                           ChannelUse use) {
  const bool unix_socket = absl::StartsWith(endpoint, "unix:") && endpoint.size() > 5;
  const size_t colon = endpoint.rfind(':');
  const bool host_port =
      colon != std::string::npos && colon > 0 && colon + 1 < endpoint.size() &&
      endpoint.find_first_not_of("0123456789", colon + 1) == std::string::npos;
  if (!unix_socket && !host_port) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not an endpoint: '", endpoint, "'; expected HOST:PORT or unix:/path/of.sock"));
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(20 << 20);
  // A dead service is to be noticed and its successor found soon, not after gRPC's two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Despite its name this is how long one attempt to connect may take, which on a busy host can be
  // long; the wait between attempts is bounded by the other two.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  // Channels of one process to one endpoint must not share a connection: a test's or a client's
  // break would be everyone's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Services are reached directly; a proxy of the environment is for the outside world.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (use == ChannelUse::kBulk) {
    arguments.SetInt(GRPC_ARG_TCP_READ_CHUNK_SIZE, kBulkReadBytes);
    arguments.SetInt(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, kBulkReadBytes);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kBulkLookaheadBytes);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kBulkFrameBytes);
  }
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments);
}

void SetDeadline(grpc::ClientContext& context, absl::Time deadline) {
  if (deadline < absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
}

}  // namespace odmoe
