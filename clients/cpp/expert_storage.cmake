odmoe_library(odmoe_client_expert_storage
  SOURCES expert_storage_admin.cc expert_storage_proto.cc mapped_arena.cc mapped_descriptor.cc
          remote_expert_source.cc shared_memory_expert_store.cc store_session.cc
  DEPENDS odmoe_experts odmoe_rpc odmoe_proto_expert_storage absl::cleanup absl::flat_hash_map)
