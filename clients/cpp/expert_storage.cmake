odmoe_library(odmoe_client_expert_storage OVERLAYS
  SOURCES expert_storage_admin.cc expert_storage_proto.cc expert_stream.cc mapped_arena.cc
          mapped_descriptor.cc remote_expert_executor.cc remote_expert_source.cc
          shared_memory_expert_store.cc store_session.cc
  DEPENDS odmoe_experts odmoe_kernels odmoe_rpc odmoe_telemetry_codec odmoe_proto_expert_storage
          absl::cleanup absl::flat_hash_map PkgConfig::xxhash)
