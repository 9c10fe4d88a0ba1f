#include "actors/common/log.hpp"
#include "actors/peer_manager/peer_manager.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

/// Gossip: what is signed is passed on to a few others and handed to whoever wants it.
namespace neuroshard {

namespace {

constexpr int64_t seen_us = 600 * peer_rules::second_us;
constexpr size_t seen_max = 16'384;
constexpr size_t fan_out_to = 6;
constexpr uint32_t publish_budget_ms = 5'000;

/// The domain that each kind is signed for; nothing for kinds this version does not know.
std::optional<std::string_view> tag_of(publish_kind kind) noexcept {
  switch (kind) {
  case publish_kind::delta_set:
    return "neuroshard-set-v1";
  case publish_kind::round_end:
    return "neuroshard-round-v1";
  case publish_kind::layer_map:
    return map_tag;
  case publish_kind::receipt:
    return "neuroshard-countersign-v1";
  }
  return std::nullopt;
}

caf::error wrong_publish(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

publish_reply not_accepted(std::string why) {
  return {false, false, std::move(why)};
}

} // namespace

/// False when it was seen already.
bool peer_manager_state::mark_seen(const kernels::digest& id, int64_t now_us) {
  if (seen.size() >= seen_max)
    std::erase_if(seen, [&](const auto& one) { return now_us >= one.second; });
  if (seen.size() >= seen_max) // all of them young: the oldest goes
    seen.erase(std::min_element(seen.begin(), seen.end(),
                                [](const auto& a, const auto& b) { return a.second < b.second; }));
  const auto [at, fresh] = seen.emplace(id, now_us + seen_us);
  return fresh || now_us >= std::exchange(at->second, now_us + seen_us);
}

caf::result<publish_reply> peer_manager_state::publish(publish_request& from) {
  if (!connected_to_others())
    return refuse(errc::unavailable, "This node takes part in no network.");
  if (from.kind == publish_kind{})
    return wrong_publish("kind", "The kind of what is published is missing.");
  if (from.ttl > publish_ttl_max)
    return wrong_publish("ttl", "What is published is passed on 6 times at most.");
  if (from.blob.payload.size() + from.blob.delegation.size() > publish_bytes_max)
    return wrong_publish("blob", "What is published has at most 256 KiB.");
  const int64_t now_us = parts.time->steady_us();
  if (const auto at = seen.find(from.id); at != seen.end() && now_us < at->second)
    return publish_reply{false, true, {}};
  const auto tag = tag_of(from.kind);
  if (!tag)
    return not_accepted("unknown_kind");
  if (kernels::sha256::of(from.blob.payload) != from.id)
    return wrong_publish("id", "The id of what is published is the SHA-256 of its payload.");
  const std::string caller = from.from.node_id;
  if (from.kind == publish_kind::layer_map) {
    switch (consider_map(from.blob, caller)) {
    case heard::adopted:
    case heard::known:
      break;
    case heard::not_the_keepers:
      return not_accepted("not_the_keeper");
    case heard::other_architecture:
      return not_accepted("architecture");
    case heard::invalid:
      return not_accepted("invalid");
    }
  } else {
    auto signer = verify_blob(from.blob, *tag, parts.time->unix_us() / 1'000);
    if (!signer) {
      if (table.bad_blob(caller, now_us))
        log::warn(name, "banned node={} why=\"published what is not signed\"", caller);
      return not_accepted(problem_of(signer.error()).reason);
    }
    // Keys are cheap: of one that nobody has announced nothing is passed on.
    if (signer->node_id != table.own().node_id && !table.find(signer->node_id))
      return not_accepted("unknown_signer");
    if (table.banned(signer->node_id, now_us))
      return not_accepted("banned");
    if (const auto sink = publish_sinks.find(from.kind); sink != publish_sinks.end() && sink->second)
      self->send(sink->second, published{from.kind, from.blob, std::move(*signer), caller});
  }
  mark_seen(from.id, now_us);
  if (from.ttl > 0) {
    --from.ttl;
    fan_out(std::move(from), caller);
  }
  return publish_reply{true, false, {}};
}

void peer_manager_state::publish_of_own(publish_kind kind, signed_blob blob) {
  if (!connected_to_others())
    return;
  publish_request what;
  what.kind = kind;
  what.id = kernels::sha256::of(blob.payload);
  what.blob = std::move(blob);
  what.ttl = publish_ttl_max;
  mark_seen(what.id, parts.time->steady_us());
  fan_out(std::move(what), {});
}

void peer_manager_state::fan_out(publish_request what, std::string_view except) {
  std::vector<peer_address> to;
  for (const auto& [id, peer] : table.entries())
    if (auto address = address_of_peer(peer);
        peer.state == peer_state::online && id != except && !address.empty())
      to.push_back({id, std::move(address), peer.node->what.tls_cert_sha256});
  for (size_t i = 0; i < std::min(fan_out_to, to.size()); ++i) {
    uint32_t random = 0;
    parts.random->fill(&random, sizeof random);
    std::swap(to[i], to[i + random % (to.size() - i)]);
    peer_call<publish_request> call{std::move(to[i]), what, publish_budget_ms};
    call.what.from = {};
    self->request(parts.link, caf::infinite, std::move(call))
        .then([](const publish_reply&) {}, [](const caf::error&) {}); // others tell it too
  }
}

} // namespace neuroshard
