#include "bench/diloco/replica_group.hpp"

#include "bench/rpc/wire_bytes.hpp"
#include "kernels/core/philox.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace neuroshard::bench {

namespace {

constexpr int64_t records_ms = 2'000;  ///< until the others' records are seen
constexpr int64_t inner_step_ms = 100; ///< of the bench's clock; 2,000 batches a minute are believed
constexpr int64_t patience_ms = 200'000;

std::shared_ptr<const node_identity> identity_of(const std::string& token, int64_t now_unix_ms) {
  auto parsed = parse_token(token);
  if (!parsed)
    die(problem_of(parsed.error()).message);
  auto made = node_identity::make(*parsed, 0, now_unix_ms);
  if (!made)
    die(problem_of(made.error()).message);
  return std::make_shared<const node_identity>(std::move(*made));
}

float normal_draw(uint64_t at) {
  constexpr uint64_t range = uint64_t{1} << 53;
  const auto unit = [&](uint64_t which) {
    return static_cast<double>(kernels::philox_below(9, 2 * at + which, 0, range)) /
           static_cast<double>(range);
  };
  return static_cast<float>(std::sqrt(-2 * std::log(1 - unit(0))) * std::cos(2 * std::numbers::pi * unit(1)));
}

} // namespace

std::vector<std::string> replica_group::node_ids(const std::vector<std::string>& tokens) {
  std::vector<std::string> ids;
  for (const auto& token : tokens)
    ids.push_back(identity_of(token, 1'800'000'000'000)->node_id());
  return ids;
}

replica_group::replica_group(training_bed& bed, outer_plan how, const std::vector<std::string>& tokens)
    : bed_(bed), plan_(std::move(how)) {
  members_.resize(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    members_[i].who = identity_of(tokens[i], bed_.clock->unix_us() / 1'000);
    members_[i].learner = bed_.make_learner({members_[i].id()});
    start(members_[i], i + 1);
  }
  count_bytes();
  if (!plan_.attack.empty())
    attack();
}

void replica_group::start(member& one, size_t number) {
  const auto id = one.id();
  const auto& shape = bed_.plan.shape;
  peer_info record;
  record.node.node_id = id;
  record.node.host = "10.0.0." + std::to_string(number);
  record.node.grpc_port = 9'000;
  record.node.has_embedding = record.node.has_lm_head = true;
  record.node.layer_end = static_cast<uint32_t>(shape.num_layers);
  record.node.architecture_id = bed_.architecture_id;
  record.node.training = true;
  record.state = peer_state::online;
  for (const auto& unit : model::units_of(shape, 0, shape.num_layers, true, true))
    record.node.units.push_back({unit.name, {}, {}});
  network_->records[id] = record;
  network_->addresses[id] = record.node.host + ":9000";
  gradient_exchanger_options how;
  how.architecture_id = bed_.architecture_id;
  how.diloco_steps = plan_.inner_steps;
  how.aggregation.strategy = plan_.strategy;
  how.compression = plan_.compression;
  how.top_k_ratio = plan_.top_k_ratio;
  how.outer = plan_.outer;
  how.peak_learning_rate = bed_.plan.optimizer.learning_rate;
  gradient_exchanger_parts parts;
  parts.worker = one.learner.worker;
  parts.peers = bed_.keep(bed_.sys.spawn(test::network_exchange_peers, network_, id));
  parts.link = bed_.keep(bed_.sys.spawn(test::network_exchange_link, network_, id));
  parts.identity = one.who;
  parts.time = bed_.clock;
  parts.random = std::make_shared<test::counting_random>(number);
  parts.announced = [network = network_, id](std::vector<unit_state> held, uint64_t version) {
    network->records[id].node.units = std::move(held);
    network->records[id].node.model_version = version;
  };
  one.exchanger = bed_.keep(bed_.sys.spawn(gradient_exchanger, parts, how));
  network_->exchangers[network_->addresses[id]] = one.exchanger;
  bed_.sched.run();
}

void replica_group::count_bytes() {
  network_->on_call = [this](const std::string& from, const std::string&, exchange_request& call) {
    bytes_[from] += wire_bytes(call, rpc::call_header{std::string(32, '0'), 30'000});
    return true;
  };
  network_->on_answer = [this](const std::string&, const std::string& to, exchange_reply& reply, bool) {
    bytes_[to] += wire_bytes(reply, std::string(32, '0'));
    return true;
  };
  network_->on_word = [this](const std::string& from, publish_kind, signed_blob& blob) {
    bytes_[from] += encode_signed_blob(blob).size() * (members_.size() - 1);
  };
}

void replica_group::attack() {
  const auto id = members_.back().id();
  liar_ = std::make_unique<test::gradient_liar>(members_.back().who, bed_.plan.shape, plan_.attack,
                                                [this] { return normal_draw(noise_drawn_++); });
  const auto count_call = std::move(network_->on_call);
  const auto count_answer = std::move(network_->on_answer);
  const auto count_word = std::move(network_->on_word);
  test::replace_contributions(*network_, id, [this](signed_blob& blob, delta_part& data) {
    if (!liar_->lie(blob, data))
      die("the liar's own contribution cannot be read");
  });
  const auto lie_call = std::move(network_->on_call);
  const auto lie_answer = std::move(network_->on_answer);
  network_->on_call = [=, this](const std::string& from, const std::string& to, exchange_request& call) {
    if (to == id && call.fetch)
      wanted_[from] = *call.fetch;
    return lie_call(from, to, call) && count_call(from, to, call);
  };
  network_->on_answer = [=, this](const std::string& from, const std::string& to, exchange_reply& reply,
                                  bool fetched) {
    if (to == id && fetched)
      for (const auto& unit : model::units_of(bed_.plan.shape, 0, bed_.plan.shape.num_layers, true, true))
        if (const auto* made = liar_->of(unit.name, rounds_ + 1))
          if (const auto manifest = decode_delta_manifest(made->blob.payload);
              manifest && manifest->content_hash == wanted_[from]) {
            reply.result = exchange_result::accepted;
            reply.reply_manifest = made->blob;
            reply.reply_part = 0;
            reply.reply_data = made->data;
          }
    return lie_answer(from, to, reply, fetched) && count_answer(from, to, reply, fetched);
  };
  network_->on_word = [=, this](const std::string& from, publish_kind kind, signed_blob& blob) {
    if (from == id && kind == publish_kind::delta_set)
      name_forged(blob);
    count_word(from, kind, blob);
  };
}

/// Where the liar collects, its set names what it has told the others; a replayed contribution, which is of
/// another round, it leaves out.
void replica_group::name_forged(signed_blob& blob) const {
  auto set = decode_delta_set(blob.payload);
  if (!set)
    die("the liar's set cannot be read");
  const auto id = members_.back().id();
  const auto* made = liar_->of(set->unit, set->round);
  const auto manifest =
      made ? decode_delta_manifest(made->blob.payload) : caf::expected<delta_manifest>(caf::error{});
  std::erase_if(set->members, [&](const set_entry& entry) { return entry.node_id == id; });
  if (made && manifest && manifest->round == set->round) {
    set->members.push_back({id, manifest->content_hash});
    std::sort(set->members.begin(), set->members.end(),
              [](const set_entry& a, const set_entry& b) { return a.node_id < b.node_id; });
    std::erase_if(set->refused, [&](const set_refusal& entry) { return entry.node_id == id; });
  }
  blob = sign_delta_set(*members_.back().who, *set);
}

void replica_group::round() {
  for (auto& one : members_)
    bed_.bind(one.learner, steps_);
  for (auto& one : members_)
    (void)bed_.must_ask<caf::unit_t>(one.exchanger, begin_round{rounds_});
  bed_.pass_ms(records_ms);
  std::vector<double> loss;
  for (auto& one : members_) {
    double sum = 0;
    for (uint64_t at = 1; at <= plan_.inner_steps; ++at)
      sum += bed_.step(one.learner, steps_ + at);
    loss.push_back(sum / plan_.inner_steps);
  }
  bed_.pass_ms(plan_.inner_steps * inner_step_ms);
  steps_ += plan_.inner_steps;
  using asked = decltype(test::ask_later<round_outcome>(bed_, members_.front().exchanger, finish_round{}));
  std::vector<asked> pending;
  for (size_t i = 0; i < members_.size(); ++i) {
    bed_.release(members_[i].learner);
    const finish_round share{
        rounds_ + 1, i == 0, plan_.inner_steps, plan_.inner_steps, plan_.inner_steps * bed_.tokens_per_step(),
        loss[i]};
    pending.push_back(test::ask_later<round_outcome>(bed_, members_[i].exchanger, share));
    bed_.sched.run();
  }
  const auto all_idle = [&] {
    return std::all_of(members_.begin(), members_.end(),
                       [&](const member& one) { return status(one, "phase") == "idle"; });
  };
  for (int64_t waited = 0; !all_idle(); waited += 500) {
    if (waited > patience_ms)
      die("a round does not end");
    bed_.pass_ms(500);
  }
  for (size_t i = 0; i < pending.size(); ++i) {
    const auto outcome = pending[i].receive();
    if (i >= honest())
      continue; // what the liar makes of the round is its own affair
    if (!outcome || outcome->how != round_end_kind::updated)
      die("round " + std::to_string(rounds_ + 1) + ": replica " + std::to_string(i) + " took no outer step");
    least_ = std::min(least_, outcome->members);
    const auto& units = [&](size_t of) -> const auto& {
      return network_->records[members_[of].id()].node.units;
    };
    if (!(units(i) == units(0)))
      die("the replicas hold different weights");
  }
  if (liar_)
    bed_.copy_weights(first(), members_.back().learner);
  ++rounds_;
}

double replica_group::bytes_sent() const {
  double sum = 0;
  for (size_t i = 0; i < honest(); ++i)
    sum += static_cast<double>(bytes_.at(members_[i].id()));
  return sum / static_cast<double>(honest());
}

std::string replica_group::status(const member& of, const std::string& key) const {
  const auto told = bed_.must_ask<actor_status>(of.exchanger, status_atom_v);
  for (const auto& [name, value] : told.values)
    if (name == key)
      return value;
  return {};
}

uint64_t replica_group::refused(bool of_liar) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < honest(); ++i)
    for (size_t j = 0; j < members_.size(); ++j)
      if ((j >= honest()) == of_liar) {
        const auto told = status(members_[i], "refused." + members_[j].id());
        sum += told.empty() ? 0 : std::stoull(told);
      }
  return sum;
}

} // namespace neuroshard::bench
