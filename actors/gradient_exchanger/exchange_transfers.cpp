// Parts on their way to other members and from them: one call to a peer at a time, paced.
#include "actors/common/log.hpp"
#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "actors/peer_link/peer_address.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

constexpr int64_t call_budget_ms = 60'000;
constexpr uint32_t attempts_max = 3;
constexpr int64_t backoff_ms = 100;
constexpr int64_t backoff_max_ms = 2'000;
constexpr int64_t behind_retry_ms = 2'000; ///< a member that has not begun the round yet
constexpr int64_t fetch_retry_ms = 500;

bool worth_retrying(const caf::error& why) {
  switch (code_of(why)) {
  case errc::unavailable:
  case errc::overloaded:
  case errc::rate_limited:
  case errc::timeout:
    return true;
  default:
    return false;
  }
}

} // namespace

const peer_info* gradient_exchanger_state::peer(const std::string& node_id) const {
  const auto at = std::find_if(known->begin(), known->end(),
                               [&](const peer_info& one) { return one.node.node_id == node_id; });
  return at == known->end() ? nullptr : &*at;
}

bool gradient_exchanger_state::may_call(const std::string& peer) {
  auto& line = lines[peer];
  const int64_t now = now_ms();
  const double most = std::max(options.calls_per_second, 1.0);
  line.allowance =
      line.filled_ms == 0
          ? most
          : std::min(most, line.allowance + most * static_cast<double>(now - line.filled_ms) / 1'000.0);
  line.filled_ms = now;
  if (line.busy || calls >= options.calls_max || line.allowance < 1)
    return false;
  line.allowance -= 1;
  line.busy = true;
  ++calls;
  return true;
}

/// Begins what may begin. What a set names goes before one's own parts.
void gradient_exchanger_state::pump() {
  if (now_in != phase::exchange)
    return;
  const int64_t now = now_ms();
  for (auto& [id, unit] : units)
    for (auto& fetching : unit.fetches) {
      if (fetching.under_way || fetching.sources.empty() || now < fetching.not_before_ms)
        continue;
      const auto* from = peer(fetching.sources[fetching.source % fetching.sources.size()]);
      if (!from) {
        ++fetching.source;
        fetching.not_before_ms = now + fetch_retry_ms;
      } else if (may_call(from->node.node_id)) {
        fetch_part(unit, *from, fetching);
      }
    }
  for (auto& [id, unit] : units) {
    // Also after every member was heard here: they want to hear this node.
    if (!unit.own || unit.outcome || !unit.window || now >= unit.window->t0_ms() + round_rules::window_ms)
      continue;
    for (auto& [member, sending] : unit.sends) {
      const auto* to = peer(member);
      if (!sending.ended && to && now >= sending.not_before_ms && may_call(member))
        send_part(unit, *to, sending);
    }
  }
}

void gradient_exchanger_state::send_part(held_unit& unit, const peer_info& to, part_sending& sending) {
  const auto* own = unit.store.find(own_id(), *unit.own);
  const auto* theirs = unit.store.of_author(to.node.node_id);
  exchange_request what;
  what.manifest = own->blob;
  what.part = sending.next;
  what.part_data = own->parts[sending.next];
  what.want_reply = !theirs || !theirs->complete();
  const int64_t left = unit.window->t0_ms() + round_rules::window_ms - now_ms();
  const auto budget = static_cast<uint32_t>(std::clamp<int64_t>(left, 1, call_budget_ms));
  if (parts.counters)
    parts.counters->bytes_sent += what.part_data->size();
  const auto done = [me = self, id = unit.name, member = to.node.node_id,
                     mine = run](caf::expected<exchange_reply> reply) {
    auto& state = me->state;
    --state.calls;
    state.lines[member].busy = false;
    if (mine == state.run && state.now_in == phase::exchange)
      state.sent(id, member, std::move(reply));
  };
  self->request(parts.link, std::chrono::milliseconds(budget) + std::chrono::seconds(1),
                peer_call<exchange_request>{address_of(to.node), std::move(what), budget})
      .then([done](exchange_reply& reply) { done(std::move(reply)); },
            [done](caf::error& why) { done(std::move(why)); });
}

void gradient_exchanger_state::sent(const std::string& id, const std::string& member,
                                    caf::expected<exchange_reply> reply) {
  auto& unit = units[id];
  auto& sending = unit.sends[member];
  const int64_t now = now_ms();
  if (!reply) {
    if (!worth_retrying(reply.error()) || ++sending.attempts >= attempts_max) {
      log::info(name, "part-not-sent node={} unit={} part={} why={}", member, id, sending.next,
                problem_of(reply.error()).message);
      sending.ended = true;
    } else {
      uint32_t random = 0;
      parts.random->fill(&random, sizeof random);
      const int64_t most = std::min(backoff_ms << (sending.attempts - 1), backoff_max_ms);
      sending.not_before_ms = now + static_cast<int64_t>(random % static_cast<uint64_t>(most + 1));
    }
    return pump();
  }
  sending.attempts = 0;
  switch (reply->result) {
  case exchange_result::accepted: {
    take_reply(unit, member, *reply);
    if (++sending.next >= unit.store.find(own_id(), *unit.own)->parts.size()) {
      sending.ended = true;
      // More parts there than here: the rest is fetched.
      const auto* theirs = unit.store.of_author(member);
      if (theirs && !theirs->complete())
        unit.fetches.push_back({member, theirs->manifest.content_hash, {member}, 0, now, false});
    }
    break;
  }
  case exchange_result::stale_round:
    if (reply->current_round < round())
      sending.not_before_ms = now + behind_retry_ms;
    else
      sending.ended = true;
    break;
  case exchange_result::not_a_member:
    sending.ended = true;
    unit.not_among.insert(member);
    if (2 * unit.not_among.size() > unit.cohort.size()) // nor does it collect
      std::erase(unit.order, own_id());
    break;
  default:
    log::info(name, "part-not-taken node={} unit={} result={} message={}", member, id,
              static_cast<int>(reply->result), reply->message);
    sending.ended = true;
  }
  advance();
}

void gradient_exchanger_state::fetch_part(held_unit& unit, const peer_info& from, part_fetching& fetching) {
  fetching.under_way = true;
  const auto* held = unit.store.find(fetching.author, fetching.content);
  exchange_request what;
  what.fetch = fetching.content;
  if (held) {
    const auto missing = std::find(held->parts.begin(), held->parts.end(), nullptr);
    what.part = static_cast<uint32_t>(missing - held->parts.begin());
  }
  const auto done = [me = self, id = unit.name, author = fetching.author, content = fetching.content,
                     member = from.node.node_id, mine = run](caf::expected<exchange_reply> reply) {
    auto& state = me->state;
    --state.calls;
    state.lines[member].busy = false;
    if (mine == state.run && state.now_in == phase::exchange)
      state.fetch_answered(id, author, content, member, std::move(reply));
  };
  const auto budget = static_cast<uint32_t>(round_rules::fetch_ms);
  self->request(parts.link, std::chrono::milliseconds(budget) + std::chrono::seconds(1),
                peer_call<exchange_request>{address_of(from.node), std::move(what), budget})
      .then([done](exchange_reply& reply) { done(std::move(reply)); },
            [done](caf::error& why) { done(std::move(why)); });
}

void gradient_exchanger_state::fetch_answered(const std::string& id, const std::string& author,
                                              const kernels::digest& content, const std::string& from,
                                              caf::expected<exchange_reply> reply) {
  auto& unit = units[id];
  const auto at = std::find_if(unit.fetches.begin(), unit.fetches.end(), [&](const part_fetching& one) {
    return one.author == author && one.content == content;
  });
  if (at == unit.fetches.end())
    return;
  at->under_way = false;
  const auto next_source = [&] {
    ++at->source;
    if (at->source % at->sources.size() == 0 || !reply)
      at->not_before_ms = now_ms() + fetch_retry_ms;
  };
  auto* into = unit.store.find(author, content);
  if (!reply || reply->result != exchange_result::accepted || !reply->reply_manifest || !reply->reply_data) {
    next_source();
  } else {
    if (!into) {
      const auto manifest = open_delta_manifest(*reply->reply_manifest, unix_ms());
      if (manifest && manifest->node_id == author && manifest->content_hash == content)
        into = unit.store.admit(*reply->reply_manifest, *manifest, true);
      if (into && unit.store.said_two_things(author))
        refuse_author(author, unit.name, "duplicate", true);
    }
    if (into && unit.store.put(*into, reply->reply_part, std::move(reply->reply_data)) == part_taken::stored)
      at->not_before_ms = 0;
    else
      next_source();
  }
  if (into && into->complete())
    unit.fetches.erase(at);
  log::debug(name, "fetched unit={} author={} from={}", id, author, from);
  advance();
}

} // namespace neuroshard
