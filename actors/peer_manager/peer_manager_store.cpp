#include "actors/common/log.hpp"
#include "actors/peer_manager/node_info.hpp"
#include "actors/peer_manager/peer_manager.hpp"

#include <algorithm>
#include <utility>

/// What outlives a node's acquaintances: the stored peer table, and the directory (a DHT).
namespace neuroshard {

namespace {

using namespace peer_rules;

/// Configured seeds are asked first.
constexpr int64_t stored_patience_us = second_us;
constexpr size_t stored_at_once = 4;
constexpr int64_t store_anyway_us = 3'600 * second_us;

constexpr uint32_t directory_port_offset = 1'000; ///< from a node's gRPC port
constexpr int64_t publish_every_us = 5 * second_us;
constexpr int64_t record_lives_us = 60 * second_us;
constexpr size_t strangers_max = 128; ///< nodes that are known by somebody's word alone

} // namespace

void peer_manager_state::begin_store() {
  for (const auto& peer : options.stored) {
    if (peer.node_id == table.own().node_id)
      continue;
    met_once one;
    one.at.address = peer.address;
    one.at.next_try_us = seeds.empty() ? 0 : started_us + stored_patience_us;
    one.seen_unix_us = peer.seen_unix_us;
    stored.emplace(peer.node_id, std::move(one));
  }
  if (!options.store_path.empty())
    store = self->spawn<caf::detached + caf::linked>(peer_store, options.store_path);
  if (!parts.directory)
    return;
  for (const auto& one : seeds)
    enter_directory(one.address);
  for (const auto& peer : options.stored)
    enter_directory(peer.address);
}

/// Where there are fewer peers than wanted, those that were met once are asked, a few at a time.
void peer_manager_state::try_stored(int64_t now_us) {
  const size_t in_touch = table.count(peer_state::online);
  size_t asked = 0;
  for (const auto& [id, one] : stored)
    asked += one.at.asked ? 1 : 0;
  for (auto& [id, one] : stored) {
    if (in_touch + asked >= options.peers_min || asked >= stored_at_once)
      return;
    if (one.at.asked || now_us < one.at.next_try_us || table.find(id) || table.banned(id, now_us))
      continue;
    const bool configured =
        std::any_of(seeds.begin(), seeds.end(), [&](const auto& s) { return s.address == one.at.address; });
    if (configured)
      continue;
    one.at.asked = true;
    ++asked;
    announce_to({{}, one.at.address, {}}, one.at.address);
  }
}

/// It has left, or is dead: asked again not before that time.
void peer_manager_state::gone(const std::string& node_id, int64_t next_try_us) {
  if (const auto at = stored.find(node_id); at != stored.end()) {
    at->second.at.next_try_us = next_try_us;
    at->second.at.tries = 0;
  }
}

void peer_manager_state::keep_stored(int64_t now_us) {
  const int64_t unix_us = parts.time->unix_us();
  for (const auto& [id, peer] : table.entries()) {
    if (peer.state != peer_state::online)
      continue;
    auto address = address_of_peer(peer);
    if (address.empty())
      continue;
    auto& kept = stored[id];
    kept.seen_unix_us = unix_us;
    if (kept.at.address == address)
      continue;
    enter_directory(address);
    kept.at = {};
    kept.at.address = std::move(address);
    stored_changed = true;
  }
  while (stored.size() > store_rules::peers_max)
    stored.erase(std::min_element(stored.begin(), stored.end(), [](const auto& a, const auto& b) {
      return a.second.seen_unix_us < b.second.seen_unix_us;
    }));
  // When they were seen goes on without a change.
  if (!store || now_us < next_store_us || (!stored_changed && now_us < next_store_us + store_anyway_us))
    return;
  stored_changed = false;
  next_store_us = now_us + store_rules::write_every_us;
  self->send(store, what_to_store());
}

write_peers peer_manager_state::what_to_store() const {
  write_peers all;
  for (const auto& [id, one] : stored)
    all.peers.push_back({id, one.at.address, one.seen_unix_us});
  return all;
}

void peer_manager_state::enter_directory(std::string_view address) {
  const auto at = parts.directory ? split_address(address) : std::nullopt;
  if (at && at->second + directory_port_offset <= 65'535)
    parts.directory->enter_through(at->first, static_cast<uint16_t>(at->second + directory_port_offset));
}

/// A record without an address leads nobody here, so it is not left before the address is known.
void peer_manager_state::keep_directory(int64_t now_us) {
  const auto& mine = own->what;
  if (!parts.directory || mine.host.empty() || mine.sequence == left_sequence || now_us < next_publish_us)
    return;
  left_sequence = mine.sequence;
  next_publish_us = now_us + publish_every_us;
  std::vector<uint32_t> layers;
  for (uint32_t layer = mine.layer_begin; layer < mine.layer_end; ++layer)
    layers.push_back(layer);
  parts.directory->publish(encode_signed_blob(own->blob), std::move(layers));
}

/// A record counts for a minute after it was first seen there: whoever lives leaves another or is met, and
/// what somebody keeps of a node that is gone is not tried for ever.
void peer_manager_state::found_in_directory(const found_record& what) {
  if (!connected_to_others() || leaving)
    return;
  const int64_t now_us = parts.time->steady_us();
  auto blob = decode_signed_blob(what.bytes);
  const auto read = blob ? read_node(std::move(*blob), parts.time->unix_us() / 1'000)
                         : caf::expected<signed_node_ptr>{blob.error()};
  if (!read) {
    log::debug(name, "found-garbage bytes={}", what.bytes.size());
    return;
  }
  const auto& node = (*read)->what;
  if (node.node_id == table.own().node_id)
    return;
  std::erase_if(found, [&](const auto& one) { return now_us - one.second.second >= grave_us; });
  if (found.size() >= known_max && !found.contains(node.node_id))
    return;
  auto& seen_there = found[node.node_id];
  if (node.sequence > seen_there.first)
    seen_there = {node.sequence, now_us};
  else if (node.sequence < seen_there.first || now_us - seen_there.second >= record_lives_us)
    return;
  if (!table.find(node.node_id) && table.count(peer_state::fresh) >= strangers_max)
    return;
  if (table.learn(*read, now_us) != peer_table::learned::added)
    return;
  log::info(name, "heard-of node={} from=dht", node.node_id);
  call_peers(now_us);
}

} // namespace neuroshard
