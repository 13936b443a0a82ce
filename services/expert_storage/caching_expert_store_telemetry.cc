// What CachingExpertStore tells of itself beyond its counters.
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {

StoreTelemetry CachingExpertStore::Telemetry(bool with_experts) {
  StoreTelemetry telemetry;
  {
    absl::MutexLock lock(&mutex_);
    TakeAllAccesses();
    recorder_.Fill(with_experts, telemetry);
    FillQueues(telemetry);
    FillUsers(telemetry);
    telemetry.shadow_policies = working_set_.ShadowHits();
  }
  telemetry.policy = std::string(PolicyKindName(policy_));
  telemetry.source = source_->Stats();
  telemetry.remote_bytes = remote_bytes_.load(std::memory_order_relaxed);
  // By the table that clients read, which needs no lock.
  for (size_t expert = 0; expert < layer_of_.size(); ++expert) {
    if (table_.LoadWord(static_cast<int64_t>(expert)) == 0) continue;
    ++telemetry.layers[layer_of_[expert]].resident;
    if (with_experts) telemetry.experts[expert].resident = true;
  }
  return telemetry;
}

void CachingExpertStore::FillQueues(StoreTelemetry& telemetry) const {
  for (const ExpertLoad* load : under_way_.active()) {
    ++telemetry.reads[CauseIndex(load->begun_as)].under_way;
  }
  // The queue moves on as soon as the disk and a slot are there: what holds it up, it waits for.
  (scheduler_.any_blocked() ? telemetry.queues.waiting_for_slot
                            : telemetry.queues.waiting_for_disk) = scheduler_.queued();
  telemetry.queues.waiting_for_slot += deferred_;
  telemetry.queues.prefetches = prefetches_.size();
  telemetry.queues.background = restores_.size();
  const PrefetchJudge::Counters& judged = judge_.counters();
  telemetry.prefetch = {judged.useful_bytes, judged.late_bytes, judged.wasted_bytes,
                        judged.delayed_demands, judged.shut_offs};
}

void CachingExpertStore::FillUsers(StoreTelemetry& telemetry) const {
  for (size_t i = 0; i < tenants_.size(); ++i) {
    const auto tenant = static_cast<int32_t>(i);
    TenantTelemetry& out = telemetry.tenants.emplace_back();
    static_cast<ExpertDistributions&>(out) = recorder_.OfTenant(tenant);
    out.name = tenants_[tenant].name;
    out.resident_bytes = working_set_.charged(tenant) * arena_->shape().slot_bytes;
    if (tenants_[tenant].cache) out.quota_bytes = tenants_.QuotaBytes(tenant, budget_bytes());
    out.disk_share = tenants_[tenant].disk_share;
    out.use = clients_.UseOfThoseGone(tenant);
  }
  for (const auto& client : clients_.all()) {
    ClientTelemetry out;
    out.id = client->id;
    out.name = client->name;
    out.tenant = tenants_[client->tenant].name;
    out.local = client->kind != StoreClient::Kind::kSession;
    out.use = ClientRegistry::UseOf(*client);
    TenantTelemetry& tenant = telemetry.tenants[client->tenant];
    tenant.use += out.use;
    tenant.clients += client->open && !out.local ? 1 : 0;
    telemetry.clients.push_back(std::move(out));
  }
  absl::flat_hash_map<uint64_t, uint64_t> unanswered;  // by client
  for (const auto& pending : demands_) {
    unanswered[pending->demand.client->id] += pending->unanswered;
    telemetry.tenants[pending->demand.client->tenant].unanswered += pending->unanswered;
  }
  for (ClientTelemetry& client : telemetry.clients) client.unanswered = unanswered[client.id];
}

void CachingExpertStore::CountAnswer(const LoadWaiter& waiter, bool ok) {
  StoreClient& client = *waiter.demand().client;
  recorder_.Answered(recorder_.now_us() - waiter.pending->arrived_us, client.tenant);
  if (!ok) ++client.use.failures;
}

}  // namespace odmoe
