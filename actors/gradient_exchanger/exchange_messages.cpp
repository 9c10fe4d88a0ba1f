// What other members say: parts, fetches, the end of a round, sets.
#include "actors/common/log.hpp"
#include "actors/gradient_exchanger/gradient_exchanger.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

constexpr size_t refused_nodes_max = 256;
constexpr size_t sets_max = 8; ///< heard for one unit: of 3 collectors, as members see them

exchange_reply answer(exchange_result result, const char* message) {
  exchange_reply made;
  made.result = result;
  made.message = message;
  return made;
}

exchange_result result_of(std::string_view reason) {
  if (reason == "stale_round")
    return exchange_result::stale_round;
  if (reason == "base_mismatch")
    return exchange_result::base_mismatch;
  return exchange_result::invalid_values;
}

} // namespace

void gradient_exchanger_state::refuse_author(const std::string& author, const std::string& unit,
                                             std::string_view reason, bool deterministic) {
  authors.insert(author);
  if (deterministic)
    authors_failed.insert(author);
  if (refused.size() < refused_nodes_max || refused.contains(author))
    ++refused[author];
  last_refused = author + " " + std::string(reason);
  log::warn(name, "contribution-refused node={} unit={} round={} reason={}", author, unit, round(), reason);
  if (parts.peers)
    self->send(parts.peers, peer_refused{author, std::string(reason)});
}

// ------------------------------------------------------------------------------------ ExchangeGradient

caf::result<exchange_reply> gradient_exchanger_state::exchange(exchange_request& call) {
  const bool in_round = now_in == phase::inner || now_in == phase::exchange || now_in == phase::writing;
  exchange_reply reply;
  reply.current_round = now_in == phase::idle ? rounds + 1 : round();
  if (call.fetch) {
    fetched(call, reply);
    return reply;
  }
  const auto say = [&](exchange_result result, const char* message) {
    reply.result = result;
    reply.message = message;
    return reply;
  };
  if (!call.manifest || !call.part_data) {
    problem wrong;
    wrong.field = call.manifest ? "part_data" : "manifest";
    wrong.reason = "malformed";
    wrong.message = "A request has a manifest and a part, or asks for a contribution.";
    return refuse(errc::invalid_request, std::move(wrong));
  }
  auto manifest = open_delta_manifest(*call.manifest, unix_ms());
  if (!manifest)
    return manifest.error();
  const auto& author = manifest->node_id;
  const auto at = units.find(manifest->unit);
  if (at == units.end())
    return say(exchange_result::not_held, "This unit is not held here.");
  auto& unit = at->second;
  reply.unit_hash = unit.hash;
  if (author != call.from.node_id)
    return say(exchange_result::not_a_member, "A member sends its own contribution.");
  if (!in_round || manifest->round != round()) {
    // A member has announced this round's base: it sends an old contribution again, or the network does.
    if (in_round && manifest->round < round() && unit.cohort.contains(author))
      refuse_author(author, unit.name, "stale_round", false);
    return say(exchange_result::stale_round, "Another round is under way here.");
  }
  // Who announces the base only now was perhaps at it from the begin on.
  if (!unit.window && !unit.w0.empty() && !unit.cohort.contains(author) &&
      now_ms() - begun_ms <= options.cohort_ms && manifest->base_unit_hash == unit.hash &&
      unit.cohort.size() < options.members_max) {
    const auto* record = peer(author);
    if (record && record->state == peer_state::online &&
        record->node.architecture_id == options.architecture_id)
      unit.cohort.insert(author);
  }
  if (!unit.cohort.contains(author))
    return say(exchange_result::not_a_member, "This node is not in the cohort of the unit.");
  const auto* record = peer(author);
  if ((record && record->state == peer_state::banned) || reputation.ignored(author, round()))
    return say(exchange_result::not_a_member, "Contributions of this node are ignored.");
  if (const auto verdict = check_manifest(*manifest, base_of(unit)); !verdict.passed()) {
    refuse_author(author, unit.name, verdict.reason, verdict.deterministic);
    return say(result_of(verdict.reason), "The contribution fails a check.");
  }
  auto* into = unit.store.admit(*call.manifest, *manifest);
  if (!into) {
    if (unit.store.said_two_things(author))
      refuse_author(author, unit.name, "duplicate", true);
    return say(exchange_result::duplicate, "Another contribution of this node came first.");
  }
  store_part(unit, *into, call.part, std::move(call.part_data), reply);
  if (reply.result == exchange_result::accepted && call.want_reply)
    add_own(unit, call.part, author, reply);
  if (now_in == phase::inner) {
    // No RoundEnd came, but as many as half of the others have ended the round.
    size_t ended = 0;
    for (const auto& member : unit.cohort) {
      const auto* one = unit.store.of_author(member);
      ended +=
          one && one->complete() &&
          (one->manifest.inner_steps >= options.diloco_steps || round_overdue(now_ms() - begun_ms, lengths));
    }
    if (ended > 0 && 2 * ended >= unit.cohort.size())
      end_heard();
  } else {
    pump();
  }
  return reply;
}

void gradient_exchanger_state::store_part(held_unit& unit, received_contribution& into, uint32_t part,
                                          delta_part bytes, exchange_reply& reply) {
  const uint64_t size = bytes ? bytes->size() : 0;
  switch (unit.store.put(into, part, std::move(bytes))) {
  case part_taken::stored:
    authors.insert(into.manifest.node_id);
    if (parts.counters)
      parts.counters->bytes_received += size;
    break;
  case part_taken::held_already:
    break;
  case part_taken::wrong_part:
    refuse_author(into.manifest.node_id, unit.name, "bad_part", true);
    reply = answer(exchange_result::invalid_values, "The part is not the one that the manifest names.");
    reply.current_round = round();
    reply.unit_hash = unit.hash;
  }
}

void gradient_exchanger_state::add_own(const held_unit& unit, uint32_t part, const std::string& to,
                                       exchange_reply& reply) {
  const auto* own = unit.own ? unit.store.find(own_id(), *unit.own) : nullptr;
  if (!own)
    return; // not ready: it will be sent
  reply.reply_manifest = own->blob;
  reply.reply_part = part;
  if (part >= own->parts.size())
    return;
  reply.reply_data = own->parts[part];
  auto& sending = units[unit.name].sends[to];
  sending.answered.insert(part);
  if (sending.answered.size() == own->parts.size())
    sending.ended = true;
}

void gradient_exchanger_state::fetched(const exchange_request& call, exchange_reply& reply) const {
  const received_contribution* found = nullptr;
  const auto look = [&](const contribution_store& in) {
    const auto* one = in.find(*call.fetch);
    if (one && !one->unfit && (call.part >= one->parts.size() || one->parts[call.part]))
      found = one;
  };
  for (const auto& [id, unit] : units)
    if (!found)
      look(unit.store);
  for (const auto& [id, store] : previous)
    if (!found)
      look(store);
  if (!found) {
    reply.result = exchange_result::not_held;
    reply.message = "This contribution is not held here.";
    return;
  }
  reply.reply_manifest = found->blob;
  reply.reply_part = call.part;
  if (call.part < found->parts.size())
    reply.reply_data = found->parts[call.part];
}

/// The contribution of a member that came back for a part of one's own. As hostile as a request.
void gradient_exchanger_state::take_reply(held_unit& unit, const std::string& from, exchange_reply& reply) {
  if (!reply.reply_manifest || !unit.cohort.contains(from) || reputation.ignored(from, round()))
    return;
  // Its manifest is the same with every part: a signature is checked once.
  const auto* known_one = unit.store.of_author(from);
  received_contribution* into = nullptr;
  if (known_one && known_one->blob.payload == reply.reply_manifest->payload) {
    into = unit.store.find(from, known_one->manifest.content_hash);
  } else {
    const auto manifest = open_delta_manifest(*reply.reply_manifest, unix_ms());
    if (!manifest || manifest->node_id != from || manifest->unit != unit.name)
      return;
    if (const auto verdict = check_manifest(*manifest, base_of(unit)); !verdict.passed())
      return refuse_author(from, unit.name, verdict.reason, verdict.deterministic);
    into = unit.store.admit(*reply.reply_manifest, *manifest);
    if (!into && unit.store.said_two_things(from))
      return refuse_author(from, unit.name, "duplicate", true);
  }
  if (!into)
    return;
  exchange_reply unused;
  if (reply.reply_data)
    store_part(unit, *into, reply.reply_part, std::move(reply.reply_data), unused);
}

// ----------------------------------------------------------------------------------------------- gossip

void gradient_exchanger_state::heard(const published& what) {
  if (!connected() || what.signer.node_id == own_id())
    return;
  if (what.kind == publish_kind::round_end) {
    const auto end = decode_round_end(what.blob.payload);
    if (!end || end->node_id != what.signer.node_id)
      return;
    const auto* record = peer(end->node_id);
    if (now_in == phase::idle || now_in == phase::beginning || now_in == phase::writing) {
      const uint64_t next = now_in == phase::beginning ? round()
                            : now_in == phase::idle    ? rounds + 1
                                                       : round() + 1;
      const round_view view{next,
                            options.architecture_id,
                            options.diloco_steps,
                            0,
                            false,
                            record && record->node.has_embedding};
      if (round_end_refused(*end, view, lengths).empty())
        early_end = *end;
      return;
    }
    const round_view view{round(),
                          options.architecture_id,
                          options.diloco_steps,
                          now_ms() - begun_ms,
                          ended_ms.has_value(),
                          record && record->node.has_embedding};
    const auto refused_why = round_end_refused(*end, view, lengths);
    log::debug(name, "round-end node={} round={} steps={} refused={}", end->node_id, end->round,
               end->inner_steps, refused_why);
    if (refused_why.empty())
      end_heard();
    return;
  }
  if (what.kind != publish_kind::delta_set || (now_in != phase::inner && now_in != phase::exchange))
    return;
  auto set = decode_delta_set(what.blob.payload);
  if (!set || set->collector != what.signer.node_id || set->round != round())
    return;
  const auto at = units.find(set->unit);
  if (at == units.end() || at->second.outcome || set->base_unit_hash != at->second.hash)
    return;
  auto& unit = at->second;
  // The first set of a collector counts; who collects is known once the cohort is.
  if (unit.sets.size() < sets_max && unit.cohort.contains(set->collector))
    unit.sets.emplace(set->collector, std::move(*set));
  if (now_in == phase::exchange)
    advance();
}

} // namespace neuroshard
