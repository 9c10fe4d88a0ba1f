#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/log.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/ledger/receipt.hpp"
#include "actors/relay/route_hops.hpp"

#include <chrono>
#include <memory>
#include <utility>

/// The driver's side of receipts (spec/economics.md section 8): counter-signed where they claim no more than
/// was counted, kept in the book, handed back.
namespace neuroshard {

/// Where receipts are kept; a part of the ledger's interface.
using receipt_book_actor = caf::typed_actor<caf::replies_to<record_receipt>::with<receipt_recorded>>;
/// Hands receipts back; a part of the link to other nodes.
using receipt_link_actor = caf::typed_actor<caf::replies_to<peer_call<publish_request>>::with<publish_reply>>;
/// Hears of those that were refused; a part of the peer manager's interface.
using refusal_listener = caf::typed_actor<caf::reacts_to<peer_refused>>;

struct driver_receipts {
  std::shared_ptr<const node_identity> identity = nullptr; ///< null: none is counter-signed
  receipt_book_actor book = {};
  receipt_link_actor link = {}; ///< may be null: none is handed back
  refusal_listener peers = {};  ///< may be null
  time_source_ptr time = nullptr;
};

namespace receipt_rules {
inline constexpr auto book_timeout = std::chrono::seconds(30);
inline constexpr uint32_t hand_back_budget_ms = 5'000;
} // namespace receipt_rules

/// Hands a receipt that both have signed to the one that did the work. Not repeated: the worker has its own
/// word, and the book here has both. The thread of `self`, as below.
template <class Self>
void hand_back(Self* self, const receipt_link_actor& link, const route_hop& to, signed_blob receipt) {
  if (!link)
    return;
  publish_request what;
  what.kind = publish_kind::receipt;
  what.id = kernels::sha256::of(receipt.payload);
  what.blob = std::move(receipt);
  peer_call<publish_request> call{address_of(to), std::move(what), receipt_rules::hand_back_budget_ms};
  self->request(link, caf::infinite, std::move(call))
      .then(
          [node = to.node_id](const publish_reply& reply) {
            if (!reply.accepted && !reply.duplicate)
              log::info("receipts", "not-taken node={} reason={}", node, reply.reason);
          },
          [node = to.node_id](const caf::error& e) {
            log::info("receipts", "not-handed-back node={} why=\"{}\"", node, problem_of(e).message);
          });
}

/// Takes what a node claims of a session that has ended. `done` is called once, later or at once: with the
/// receipt when it is in the book, with null when it was refused or could not be kept.
template <class Self, class Done>
void take_receipt(Self* self, const driver_receipts& with, const route_hop& from, const receipt_terms& terms,
                  const signed_blob& claimed, Done done) {
  auto made = countersign_within(*with.identity, terms, claimed, with.time->unix_us() / 1'000);
  if (!made) {
    const auto why = problem_of(made.error());
    log::warn("receipts", "refused work={} node={} reason={}", terms.work_id, from.node_id, why.reason);
    if (with.peers)
      self->send(with.peers, peer_refused{from.node_id, why.reason});
    return done(nullptr);
  }
  record_receipt what{made->worker_blob, made->driver_blob};
  self->request(with.book, receipt_rules::book_timeout, std::move(what))
      .then(
          [self, link = with.link, from, done, receipt = std::move(*made)](const receipt_recorded&) mutable {
            hand_back(self, link, from, receipt.driver);
            done(&receipt);
          },
          [self, peers = with.peers, node = from.node_id, done](const caf::error& e) mutable {
            if (peers && problem_of(e).reason == "conflicting_receipt")
              self->send(peers, peer_refused{node, "conflicting_receipt"});
            log::warn("receipts", "not-kept node={} why=\"{}\"", node, problem_of(e).message);
            done(nullptr);
          });
}

} // namespace neuroshard
