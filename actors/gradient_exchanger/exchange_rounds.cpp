// A round from its cohort to its outer step.
#include "actors/common/log.hpp"
#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "actors/gradient_exchanger/unit_weights.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto peers_patience = std::chrono::seconds(2);
/// Of two members the one with the lower id calls; the other waits for it so long, since its parts go back in
/// the replies.
constexpr int64_t called_within_ms = 5'000;
constexpr int64_t records_retry_ms = 500;

bool holds(const node_description& node, const std::string& unit) {
  return std::any_of(node.units.begin(), node.units.end(),
                     [&](const unit_state& one) { return one.unit == unit; });
}
std::optional<kernels::digest> hash_at(const node_description& node, const std::string& unit) {
  for (const auto& one : node.units)
    if (one.unit == unit)
      return one.unit_hash;
  return std::nullopt;
}

} // namespace

// ---------------------------------------------------------------------------------------------- cohort

void gradient_exchanger_state::refresh_peers(std::function<void()> then) {
  if (!connected())
    return then();
  self->request(parts.peers, peers_patience, peers_atom_v)
      .then(
          [me = self, then](const peer_list_ptr& all) {
            me->state.known = all;
            then();
          },
          [then](const caf::error&) { then(); });
}

/// Members are those seen at this node's base: same architecture, version and hash. Records of a new version
/// take a few seconds to come, so they are looked at for the first 30 s of a round, and for the last time
/// when its inner steps end; who comes later is no member.
void gradient_exchanger_state::fix_cohorts() {
  if (now_ms() - begun_ms > options.cohort_ms)
    return;
  for (const auto& other : *known) {
    const auto& node = other.node;
    if (other.state != peer_state::online || node.node_id == own_id() || node.model_version != base ||
        node.architecture_id != options.architecture_id)
      continue;
    for (auto& [id, unit] : units)
      if (!unit.w0.empty() && unit.cohort.size() < options.members_max && hash_at(node, id) == unit.hash)
        unit.cohort.insert(node.node_id);
  }
}

/// More of the other holders are at the outer step that this node still forms than at its base.
bool gradient_exchanger_state::ahead() const {
  size_t before = 0;
  size_t there = 0;
  for (const auto& other : *known) {
    const auto& node = other.node;
    if (other.state != peer_state::online || node.node_id == own_id() ||
        node.architecture_id != options.architecture_id ||
        std::none_of(units.begin(), units.end(), [&](const auto& one) { return holds(node, one.first); }))
      continue;
    const bool member = std::any_of(units.begin(), units.end(), [&](const auto& one) {
      return one.second.cohort.contains(node.node_id);
    });
    if (node.model_version >= round())
      ++there;
    else if (member)
      ++before;
  }
  return there > before;
}

/// Of those at this node's base, the largest group's hash stands. Records are late by seconds, so another
/// hash must have stood for 15 s.
void gradient_exchanger_state::compare_hashes() {
  bool apart = false;
  for (const auto& [id, unit] : units) {
    std::vector<member_hash> members{{own_id(), unit.hash}};
    for (const auto& other : *known)
      if (other.state == peer_state::online && other.node.model_version == base &&
          other.node.architecture_id == options.architecture_id && other.node.node_id != own_id())
        if (const auto hash = hash_at(other.node, id))
          members.push_back({other.node.node_id, *hash});
    apart = apart || standing_hash(std::move(members)) != unit.hash;
  }
  if (!apart)
    return apart_since_ms.reset();
  if (!apart_since_ms)
    apart_since_ms = now_ms();
  if (now_ms() - *apart_since_ms < round_rules::compare_ms || must_resync)
    return;
  log::warn(name, "other-weights-stand outer_step={}", base);
  must_resync = true;
  tell_trainer();
}

void gradient_exchanger_state::note_peers() {
  if (!connected() || (now_in != phase::inner && now_in != phase::exchange))
    return;
  for (const auto& other : *known)
    if (other.node.training)
      for (auto& [id, unit] : units)
        if (unit.cohort.contains(other.node.node_id))
          unit.training.insert(other.node.node_id);
  if (!ahead())
    ahead_since_ms.reset();
  else if (!ahead_since_ms)
    ahead_since_ms = now_ms();
  if (now_in != phase::inner)
    return;
  fix_cohorts();
  if (now_ms() - begun_ms > options.cohort_ms)
    for (auto& [id, unit] : units)
      if (unit.cohort.empty())
        unit.w0.clear(); // nobody else holds it
  compare_hashes();
  if (ahead_since_ms && now_ms() - *ahead_since_ms >= round_rules::compare_ms)
    tell_trainer(); // the round is long over elsewhere
}

// -------------------------------------------------------------------------------------------- exchange

void gradient_exchanger_state::begin_exchange() {
  round_outcome result;
  result.round = round();
  result.tokens = finishing.tokens;
  if (connected())
    fix_cohorts();
  // In a round of a few seconds the records of the others may still tell of the outer step before.
  const bool late_records = std::any_of(known->begin(), known->end(), [&](const peer_info& other) {
    return other.state == peer_state::online && other.node.node_id != own_id() &&
           other.node.model_version < base && other.node.architecture_id == options.architecture_id &&
           std::any_of(units.begin(), units.end(), [&](const auto& one) {
             return !one.second.cohort.contains(other.node.node_id) && holds(other.node, one.first);
           });
  });
  if (connected() && late_records && now_ms() - begun_ms < round_rules::compare_ms)
    return after(records_retry_ms, [me = self, mine = run] {
      me->state.refresh_peers([me, mine] {
        if (mine == me->state.run && me->state.now_in == phase::exchange)
          me->state.begin_exchange();
      });
    });
  const bool set_heard =
      std::any_of(units.begin(), units.end(), [](const auto& one) { return !one.second.sets.empty(); });
  if (must_resync || (connected() && ahead() && !set_heard)) {
    result.how = round_end_kind::resync;
    return outcome(std::move(result));
  }
  auto what = std::make_shared<reading>();
  for (auto& [id, unit] : units) {
    if (!unit.shared())
      unit.w0.clear();
    else
      what->units.insert(id);
  }
  if (what->units.empty())
    return outcome(std::move(result)); // alone
  what->none = finishing.inner_steps == 0;
  what->each = [me = self](const std::string& id, const std::shared_ptr<const unit_layout>& layout,
                           std::vector<tensor_handle> values) {
    auto& unit = me->state.units[id];
    if (unit.layout && *unit.layout == *layout)
      unit.w_h = std::move(values);
  };
  what->done = [me = self, mine = run](caf::expected<uint64_t> t) {
    auto& state = me->state;
    if (mine != state.run || state.now_in != phase::exchange)
      return;
    if (!t)
      return state.fail(std::move(t.error()));
    state.optimizer_step = *t;
    for (auto& [id, unit] : state.units) {
      if (!unit.shared())
        continue;
      if (!unit.w_h.empty())
        state.encode_own(unit);
      unit.window.emplace(*state.ended_ms);
      std::vector<std::string> members(unit.cohort.begin(), unit.cohort.end());
      members.push_back(state.own_id());
      unit.order = collector_order(state.round(), std::move(members));
    }
    state.advance();
  };
  read_weights(what);
}

void gradient_exchanger_state::encode_own(held_unit& unit) {
  const weight_difference delta(unit.w_h, unit.w0);
  delta_options how;
  how.encoding = options.compression;
  how.top_k_ratio = options.top_k_ratio;
  how.part_bytes_max = options.part_bytes;
  auto made = encode_delta(*unit.layout, how, [&](size_t tensor, std::span<float> out) {
    auto wrong = delta.read(tensor, out);
    if (!wrong)
      unit.residual.add_to(tensor, out);
    return wrong;
  });
  if (!made || !std::isfinite(finishing.loss) || !(finishing.loss > 0)) {
    log::warn(name, "no-contribution unit={} round={} why={}", unit.name, round(),
              made ? "The loss is not a number above 0." : problem_of(made.error()).message);
    return;
  }
  delta_manifest manifest;
  manifest.unit = unit.name;
  manifest.round = round();
  manifest.base_round = base;
  manifest.base_unit_hash = unit.hash;
  manifest.architecture_id = options.architecture_id;
  manifest.node_id = own_id();
  manifest.inner_steps = finishing.inner_steps;
  manifest.batches = finishing.batches;
  manifest.tokens = finishing.tokens;
  manifest.loss = finishing.loss;
  manifest.encoding = options.compression;
  manifest.created_unix_ms = unix_ms();
  seal_parts(manifest, *made);
  auto* own = unit.store.admit(sign_delta_manifest(*parts.identity, manifest), manifest);
  for (uint32_t part = 0; own && part < made->size(); ++part)
    (void)unit.store.put(*own, part, std::move((*made)[part]));
  if (!own || own->unfit)
    return;
  unit.own = manifest.content_hash;
  for (const auto& member : unit.cohort) {
    const auto* theirs = unit.store.of_author(member);
    const bool waits = own_id() > member && !(theirs && theirs->complete()); // it has called already
    unit.sends[member].not_before_ms = waits ? now_ms() + called_within_ms : 0;
  }
  if (parts.counters)
    ++parts.counters->gradients_submitted;
}

void gradient_exchanger_state::advance() {
  if (now_in != phase::exchange)
    return;
  bool all = true;
  bool any = false;
  for (auto& [id, unit] : units) {
    if (!unit.window)
      continue;
    any = true;
    if (!unit.outcome)
      advance_unit(unit);
    if (now_in != phase::exchange)
      return; // resync
    all = all && unit.outcome.has_value();
  }
  if (!any)
    return;
  if (all)
    return write_weights();
  const bool no_set = std::any_of(units.begin(), units.end(), [](const auto& one) {
    return one.second.window && !one.second.outcome && !one.second.chosen;
  });
  if (no_set && ahead_since_ms && now_ms() - *ahead_since_ms >= round_rules::compare_ms)
    return outcome({round(), round_end_kind::resync, false, 1, 0});
  pump();
}

bool gradient_exchanger_state::all_heard(const held_unit& unit) const {
  return std::all_of(unit.cohort.begin(), unit.cohort.end(), [&](const std::string& member) {
    const auto* one = unit.store.of_author(member);
    if ((one && one->complete()) || unit.store.said_two_things(member))
      return true;
    const auto* record = peer(member);
    return !record || record->state == peer_state::dead || record->state == peer_state::banned ||
           (!record->node.training && !unit.training.contains(member));
  });
}

void gradient_exchanger_state::advance_unit(held_unit& unit) {
  const int64_t now = now_ms();
  if (unit.window->open(now) && all_heard(unit))
    unit.window->all_heard(now);
  choose_set(unit);
  if (!unit.chosen) {
    const auto rank = unit.window->collector(now, unit.order.size());
    if (rank && unit.order[*rank] == own_id() && !unit.sets.contains(own_id())) {
      collect(unit);
      choose_set(unit);
    }
  }
  if (unit.chosen) {
    if (set_complete(unit))
      return take_outer_step(unit);
    if (now - unit.chosen_ms >= round_rules::fetch_ms) {
      log::warn(name, "set-incomplete unit={} round={} collector={}", unit.name, round(),
                unit.chosen->collector);
      outcome({round(), round_end_kind::resync, false, 1, 0});
    }
    return;
  }
  // Of another member this one may have heard less than it was sent: the whole window is waited for.
  if (exchange_window(unit.window->t0_ms()).given_up(now, unit.order.size())) {
    log::warn(name, "round-lost unit={} round={}", unit.name, round());
    unit.outcome = outer_kind::lost;
    unit.w = values_of(unit.w0);
    unit.v = unit.velocity;
  }
}

/// Of several sets the earlier collector's. A later collector's counts once its time can have come, by this
/// node's own sight of T0 and a window that closed at once: it cannot be before the earlier one's.
void gradient_exchanger_state::choose_set(held_unit& unit) {
  const int64_t since_t0 = now_ms() - unit.window->t0_ms();
  for (size_t rank = 0; rank < std::min(unit.order.size(), round_rules::collectors_max); ++rank) {
    const auto at = unit.sets.find(unit.order[rank]);
    if (at == unit.sets.end() || since_t0 < static_cast<int64_t>(rank) * round_rules::collector_ms)
      continue;
    if (!unit.chosen || unit.chosen->collector != at->first) {
      unit.chosen = at->second;
      unit.chosen_ms = now_ms();
      unit.fetches.clear();
    }
    return;
  }
}

void gradient_exchanger_state::collect(held_unit& unit) {
  std::vector<candidate> all;
  std::vector<delta_reader> readers;
  std::map<kernels::digest, std::string> contents;
  delta_set set;
  const auto held = unit.store.all();
  readers.reserve(held.size());
  std::vector<const received_contribution*> judged;
  for (const auto* one : held) {
    if (!one->complete())
      continue;
    const auto& author = one->manifest.node_id;
    const auto last = last_content.find(unit.name);
    const bool again = last != last_content.end() && last->second.contains(author) &&
                       last->second.at(author) == one->manifest.content_hash;
    // What somebody else has sent, or the author in the round before: a copy, whoever signs it.
    if (!contents.emplace(one->manifest.content_hash, author).second || again) {
      set.refused.push_back({author, one->manifest.content_hash, "duplicate"});
      refuse_author(author, unit.name, "duplicate", false);
      continue;
    }
    candidate next{&one->manifest, nullptr};
    if (!one->unfit)
      if (auto reader = delta_reader::open(unit.layout, one->manifest.encoding, one->parts)) {
        readers.push_back(std::move(*reader));
        next.values = &readers.back();
      }
    all.push_back(next);
    judged.push_back(one);
    if (unit.store.said_two_things(author)) { // and both are out
      all.push_back(next);
      judged.push_back(nullptr);
    }
  }
  const weight_difference own(unit.w_h, unit.w0);
  judge_view view;
  view.own = unit.w_h.empty() ? nullptr : &own;
  view.round_ms = now_ms() - begun_ms;
  view.batches_per_minute = options.batches_per_minute;
  view.membership = [&](const std::string& author) -> std::string_view {
    if (author != own_id() && !unit.cohort.contains(author))
      return "not_a_member";
    const auto* record = peer(author);
    if (record && record->state == peer_state::banned)
      return "banned";
    return reputation.ignored(author, round()) ? "ignored" : "";
  };
  const auto verdicts = judge_contributions(*unit.layout, all, base_of(unit), view);
  for (size_t i = 0; i < all.size(); ++i) {
    if (!judged[i])
      continue;
    const auto& manifest = *all[i].manifest;
    if (verdicts[i].passed()) {
      set.members.push_back({manifest.node_id, manifest.content_hash});
      continue;
    }
    set.refused.push_back({manifest.node_id, manifest.content_hash, std::string(verdicts[i].reason)});
    refuse_author(manifest.node_id, unit.name, verdicts[i].reason, verdicts[i].deterministic);
  }
  set.unit = unit.name;
  set.round = round();
  set.base_unit_hash = unit.hash;
  set.collector = own_id();
  set.created_unix_ms = unix_ms();
  log::info(name, "collected unit={} round={} members={} refused={}", unit.name, round(), set.members.size(),
            set.refused.size());
  self->request(parts.peers, caf::infinite,
                publish_own{publish_kind::delta_set, sign_delta_set(*parts.identity, set)})
      .then([] {}, [](const caf::error&) {});
  unit.sets.insert_or_assign(own_id(), std::move(set));
}

/// Whether all that the set names is here; asks for what is not.
bool gradient_exchanger_state::set_complete(held_unit& unit) {
  bool all = true;
  for (const auto& entry : unit.chosen->members) {
    const auto* one = unit.store.find(entry.node_id, entry.content_hash);
    // One whose manifest fails is left out by everybody alike: its parts are not wanted.
    if (one && (one->complete() || !check_manifest(one->manifest, base_of(unit)).passed()))
      continue;
    all = false;
    std::vector<std::string> sources;
    for (const auto& source : {unit.chosen->collector, entry.node_id})
      if (source != own_id() && (sources.empty() || sources.front() != source))
        sources.push_back(source);
    const auto at =
        std::find_if(unit.fetches.begin(), unit.fetches.end(), [&](const part_fetching& fetching) {
          return fetching.author == entry.node_id && fetching.content == entry.content_hash;
        });
    if (at == unit.fetches.end())
      unit.fetches.push_back({entry.node_id, entry.content_hash, std::move(sources), 0, 0, false});
    else if (at->sources.size() < sources.size())
      at->sources = std::move(sources);
  }
  return all;
}

// ------------------------------------------------------------------------------------------ outer step

void gradient_exchanger_state::take_outer_step(held_unit& unit) {
  const auto& set = *unit.chosen;
  std::vector<candidate> all;
  std::vector<delta_reader> readers;
  const auto held = unit.store.all();
  readers.reserve(held.size());
  const auto add = [&](const received_contribution& one) {
    candidate next{&one.manifest, nullptr};
    if (one.complete() && !one.unfit)
      if (auto reader = delta_reader::open(unit.layout, one.manifest.encoding, one.parts)) {
        readers.push_back(std::move(*reader));
        next.values = &readers.back();
      }
    all.push_back(next);
  };
  for (const auto& entry : set.members)
    add(*unit.store.find(entry.node_id, entry.content_hash));
  const bool own_set = set.collector == own_id();
  if (!own_set) { // what the collector left out may tell of its author, here too
    for (const auto* one : held) {
      const auto& id = one->manifest;
      if (one->complete() &&
          std::none_of(set.members.begin(), set.members.end(),
                       [&](const set_entry& entry) { return entry.node_id == id.node_id; })) {
        std::optional<delta_reader> reader;
        if (!one->unfit)
          if (auto opened = delta_reader::open(unit.layout, id.encoding, one->parts))
            reader.emplace(std::move(*opened));
        const auto verdict = reader ? check_values(*unit.layout, *reader, id.inner_steps, base_of(unit))
                                    : check_verdict{"bad_shape", true};
        if (!verdict.passed())
          refuse_author(id.node_id, unit.name, verdict.reason, verdict.deterministic);
      }
    }
  }
  std::vector<check_verdict> verdicts(all.size());
  const weight_difference delta(unit.w_h, unit.w0);
  if (!own_set) {
    judge_view view;
    view.own = unit.w_h.empty() ? nullptr : &delta;
    view.round_ms = now_ms() - begun_ms;
    view.batches_per_minute = options.batches_per_minute;
    verdicts = judge_contributions(*unit.layout, all, base_of(unit), view);
  }
  std::vector<contribution> used;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& manifest = *all[i].manifest;
    if (!verdicts[i].passed())
      refuse_author(manifest.node_id, unit.name, verdicts[i].reason, verdicts[i].deterministic);
    else
      authors.insert(manifest.node_id);
    if (verdicts[i].deterministic)
      continue;
    used.push_back({manifest.node_id, manifest.batches, manifest.created_unix_ms, all[i].values});
    unit.tokens += manifest.tokens;
  }
  outer_state state{values_of(unit.w0), unit.velocity};
  auto kind = outer_step(*unit.layout, used, options.aggregation, options.outer, set.created_unix_ms, state);
  if (!kind) {
    log::error(name, "outer-step-failed unit={} why={}", unit.name, problem_of(kind.error()).message);
    return outcome({round(), round_end_kind::resync, false, 1, 0});
  }
  if (unit.own && options.compression != delta_encoding::f32)
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].manifest->node_id == own_id() && all[i].manifest->content_hash == *unit.own && all[i].values)
        if (auto wrong = unit.residual.settle(*unit.layout, delta, *all[i].values))
          log::error(name, "residual-kept unit={} why={}", unit.name, problem_of(wrong).message);
  if (parts.counters &&
      std::any_of(used.begin(), used.end(), [&](const contribution& one) { return one.node_id == own_id(); }))
    ++parts.counters->gradients_accepted;
  unit.contributions = static_cast<uint32_t>(used.size());
  unit.outcome = *kind;
  unit.w = std::move(state.w);
  unit.v = std::move(state.v);
  unit.w_h.clear();
  unit.w0.clear();
  unit.fetches.clear();
  log::info(name, "outer-step unit={} round={} contributions={}", unit.name, round(), used.size());
}

void gradient_exchanger_state::all_written() {
  round_outcome result{round(), round_end_kind::updated, true, 1, 0};
  to_write.clear();
  for (auto& [id, unit] : units) {
    if (!unit.outcome)
      continue;
    unit.velocity = std::move(unit.v);
    result.members = std::max(result.members, unit.contributions);
    result.tokens = std::max(result.tokens, unit.tokens);
  }
  announce(round());
  outcome(std::move(result));
}

void gradient_exchanger_state::settle_reputation() {
  for (const auto& author : authors) {
    if (author == (parts.identity ? own_id() : ""))
      continue;
    if (!authors_failed.contains(author))
      reputation.passed(author);
    else if (reputation.failed(author, round())) {
      log::warn(name, "ignored node={} rounds={} why=\"contributions that fail deterministic checks\"",
                author, exchange_reputation::ignored_rounds);
      if (parts.peers)
        self->send(parts.peers, peer_refused{author, {}, round() + exchange_reputation::ignored_rounds});
    }
  }
  authors.clear();
  authors_failed.clear();
}

} // namespace neuroshard
