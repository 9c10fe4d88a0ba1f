#include "gateway/node/joining.hpp"

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/common/log.hpp"
#include "actors/peer_link/peer_address.hpp"
#include "gateway/config/adopted_architecture.hpp"
#include "gateway/config/network_parameters.hpp"

#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>
#include <vector>

namespace neuroshard {

namespace {

constexpr int64_t first_patience_us = 5'000'000;
constexpr int64_t most_patience_us = 300'000'000;
constexpr size_t asked_max = 16;
constexpr auto peers_timeout = std::chrono::seconds(5);
constexpr auto fetch_timeout = std::chrono::seconds(120);

/// Whoever can be called and holds a part of the same model.
std::vector<peer_address> holders_of(const peer_list& known, const std::string& architecture_id) {
  std::vector<peer_address> found;
  for (const auto& peer : known)
    if (peer.state == peer_state::online && peer.node.architecture_id == architecture_id &&
        !peer.node.host.empty() && found.size() < asked_max)
      found.push_back(address_of(peer.node));
  return found;
}

using text_listener = std::function<void(caf::expected<std::string>)>;

/// One fetch, told to `then` on an actor's thread exactly once.
void fetch_tokenizer(caf::actor_system& system, const node_actors& fronts, const std::string& architecture_id,
                     const std::string& hash, const text_listener& then) {
  system.spawn([=](caf::event_based_actor* self) {
    const auto failed = [then](caf::error& why) { then(std::move(why)); };
    self->request(fronts.peers, peers_timeout, peers_atom_v)
        .then(
            [=](const peer_list_ptr& known) {
              fetch_units wish;
              wish.candidates = holders_of(*known, architecture_id);
              wish.include_tokenizer = true;
              wish.tokenizer_hash = hash;
              self->request(fronts.checkpoint_receiver, fetch_timeout, std::move(wish))
                  .then(
                      [=](const fetched_units& got) {
                        self->request(fronts.checkpoint_receiver, fetch_timeout,
                                      read_fetched{got.fetch_id, "tokenizer"})
                            .then(
                                [=, id = got.fetch_id](const tensor_handle& bytes) {
                                  caf::anon_send(fronts.checkpoint_receiver, drop_fetched{id});
                                  then(std::string(bytes.view.as<char>(), bytes.view.bytes()));
                                },
                                failed);
                      },
                      failed);
            },
            failed);
  });
}

} // namespace

joining::verdict joining::heard(const placement_changed& what) {
  if (what.other_architecture) {
    another_architecture(what);
    return verdict::stays_out;
  }
  const bool with_others = what.other_nodes > 0;
  parts_.settings->in_cohort(with_others);
  if (!with_others)
    return verdict::goes_on;
  wanted_ = tokenizer_in(what.training);
  compare_tokenizers();
  return parts_.settings->join_network(what.training) ? verdict::other_parameters : verdict::goes_on;
}

/// The cluster's architecture wins over that of a node that left it open and is alone. One that has adopted
/// one before changes for a network of several only: two such nodes would change places for ever.
void joining::another_architecture(const placement_changed& what) {
  if (parts_.settings->in_cohort())
    return;
  const auto config = parts_.settings->current();
  const auto& m = config->model;
  auto shape = model::parse_architecture(what.architecture);
  const char* stays = m.preset != "auto" ? "model.preset is fixed here"
                      : !shape           ? "the kernels cannot run it"
                      : !m.adopted.empty() && what.other_nodes < 2
                          ? "it is that of one node, and this one has adopted one before"
                          : nullptr;
  if (stays != nullptr) {
    log::warn("node", "stays-out why=\"the network has another architecture; {}\" own={} network={}", stays,
              model::canonical_json(parts_.shape), what.architecture);
    return;
  }
  if (auto written = write_adopted_architecture(parts_.data_dir, *shape); !written) {
    log::error("node", "architecture-not-adopted why=\"{}\"", written.error().line);
    return;
  }
  // One of another size is learned anew, or fetched.
  if (const auto& path = config->data.tokenizer;
      shape->vocab_capacity != parts_.shape.vocab_capacity && path.starts_with(parts_.data_dir + "/"))
    std::rename(path.c_str(), (path + ".before").c_str());
  log::info("node", "adopts-architecture network={}", what.architecture);
  parts_.start_again("the network has another architecture");
}

void joining::tokenizer_ready(const text::tokenizer& tokens, const node_config& c) {
  own_ = kernels::to_hex(tokens.hash());
  replaceable_ = c.data.shards.empty() && c.data.tokenizer.starts_with(parts_.data_dir + "/");
  parts_.settings->tokenizer(own_);
  compare_tokenizers();
}

void joining::tick() {
  compare_tokenizers();
}

/// Two nodes that read text into other tokens cannot train one model, though their weights have equal shapes.
void joining::compare_tokenizers() {
  if (wanted_.empty() || own_.empty() || wanted_ == own_ || asking_ || parts_.time->steady_us() < ask_us_)
    return;
  asking_ = true;
  if (patience_us_ == 0)
    log::warn("node", "other-tokenizer own={} network={} replaceable={}", own_, wanted_, replaceable_);
  patience_us_ = std::clamp(2 * patience_us_, first_patience_us, most_patience_us);
  if (!replaceable_)
    return; // for good
  fetch_tokenizer(*parts_.system, parts_.fronts, model::architecture_id(parts_.shape), wanted_,
                  [this, hash = wanted_](caf::expected<std::string> text) {
                    parts_.post([this, hash, text = std::move(text)] { tokenizer_came(hash, text); });
                  });
}

void joining::tokenizer_came(const std::string& hash, const caf::expected<std::string>& text) {
  asking_ = false;
  ask_us_ = parts_.time->steady_us() + patience_us_;
  if (hash != wanted_)
    return; // the network has become another meanwhile
  const auto refused = [&](const std::string& why) {
    log::warn("node", "tokenizer-not-fetched why=\"{}\" again_in_s={}", why, patience_us_ / 1'000'000);
  };
  if (!text)
    return refused(problem_of(text.error()).message);
  const auto tokens = text::tokenizer::parse(*text, "the network's tokenizer");
  if (!tokens)
    return refused(tokens.status().message());
  if (kernels::to_hex(tokens->hash()) != hash || tokens->vocab_size() > parts_.shape.vocab_capacity)
    return refused("it is another than was asked for, or too large for the model");
  const auto path = parts_.settings->current()->data.tokenizer;
  if (auto written = write_file_atomically(path, *text, 0644); !written)
    return refused(written.error().line);
  log::info("node", "adopts-tokenizer hash={} vocabulary={}", hash, tokens->vocab_size());
  parts_.start_again("the network has another tokenizer");
}

} // namespace neuroshard
