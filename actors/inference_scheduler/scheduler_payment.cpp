// What a generation costs and who is paid (spec/economics.md section 7). Other wallets are paid by their
// receipts; what has none is counted, named in the bill and burned.
#include "actors/common/log.hpp"
#include "actors/inference_scheduler/inference_scheduler.hpp"

#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto pay_timeout = std::chrono::seconds(30);
constexpr int64_t receipts_patience_us = 2'000'000; ///< a settlement waits for them

} // namespace

void inference_scheduler_state::pay(generation_ptr g, bool free) {
  if (g->output.count() == 0) // a caller who left pays for the prompt
    g->count_work(g->positions());
  if (free || (g->charged_late && g->output.count() == g->charged_from)) {
    self->request(parts.ledger, pay_timeout, refund_inference{g->id})
        .then([me = self, g](const refund_result&) { me->state.paid(g, {}); },
              [me = self, g](const caf::error& e) {
                log::error(name, "refund-failed id={} why={}", g->id, problem_of(e).message);
                me->state.paid(g, {}); // it expires by itself
              });
    return;
  }
  g->receipts_until_us = parts.time->steady_us() + receipts_patience_us;
  if (g->receipts_open == 0)
    settle(g);
}

/// Once: with the last receipt, or without those that did not come in time.
void inference_scheduler_state::settle(const generation_ptr& g) {
  g->receipts_until_us = 0;
  settle_inference bill;
  bill.request_id = g->id;
  bill.prompt_tokens = g->charged_late ? 0 : g->prompt.size();
  bill.completion_tokens = g->output.count() - g->charged_from;
  g->work.bill(bill, options.address);
  self->request(parts.ledger, pay_timeout, std::move(bill))
      .then([me = self, g](const settle_result& settled) { me->state.paid(g, settled.cost); },
            [me = self, g](const caf::error& e) {
              log::error(name, "settle-failed id={} why={}", g->id, problem_of(e).message);
              me->state.paid(g, {});
            });
}

/// A generation that was free leaves this wallet's nodes: what is still to come is reserved, and free as well
/// where the balance does not allow that.
void inference_scheduler_state::charge_rest(const generation_ptr& g, std::function<void()> then) {
  const uint32_t produced = g->output.count();
  reserve_inference rest{g->id, produced == 0 ? g->prompt.size() : 0, g->request.max_tokens - produced};
  self->request(parts.ledger, pay_timeout, std::move(rest))
      .then(
          [me = self, g, produced, then](const reserve_result&) {
            if (g->at != generation::stage::routing) { // it ended meanwhile
              me->request(me->state.parts.ledger, pay_timeout, refund_inference{g->id})
                  .then([](const refund_result&) {},
                        [id = g->id](const caf::error& e) {
                          log::error(name, "refund-failed id={} why={}", id, problem_of(e).message);
                        });
              return;
            }
            g->reserved = true;
            g->charged_late = produced > 0;
            g->charged_from = produced;
            if (produced > 0)
              g->work.begin_charge();
            then();
          },
          [g, then](const caf::error& e) {
            log::info(name, "goes-on-free id={} why={}", g->id, problem_of(e).message);
            if (g->at == generation::stage::routing)
              then();
          });
}

/// A node has freed a session. Precondition: `receipts_open` counts it.
void inference_scheduler_state::session_closed(const generation_ptr& g, const route_hop& hop,
                                               const std::string& session_id,
                                               const std::vector<signed_blob>& receipts) {
  const auto terms = g->work.terms_of(g->id, session_id, hop.node_id);
  if (!parts.receipts.identity || receipts.empty() || !terms)
    return receipt_done(g);
  take_receipt(self, parts.receipts, hop, *terms, receipts.front(),
               [me = self, g, node = hop.node_id, session_id](const countersigned_receipt* kept) {
                 if (kept)
                   g->work.recorded(session_id, node, *kept);
                 me->state.receipt_done(g);
               });
}

void inference_scheduler_state::receipt_done(const generation_ptr& g) {
  --g->receipts_open;
  if (g->receipts_open == 0 && g->receipts_until_us != 0)
    settle(g);
}

} // namespace neuroshard
