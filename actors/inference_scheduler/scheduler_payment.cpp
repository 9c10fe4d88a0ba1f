// What a generation costs and who is paid (spec/economics.md section 7). No node makes receipts for inference
// yet: what other wallets did is counted, named in the bill and burned.
#include "actors/common/log.hpp"
#include "actors/inference_scheduler/inference_scheduler.hpp"

#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto pay_timeout = std::chrono::seconds(30);

} // namespace

void inference_scheduler_state::pay(generation_ptr g, bool free) {
  g->count_work();
  if (free || (g->charged_late && g->output.count() == g->charged_from)) {
    self->request(parts.ledger, pay_timeout, refund_inference{g->id})
        .then([me = self, g](const refund_result&) { me->state.paid(g, {}); },
              [me = self, g](const caf::error& e) {
                log::error(name, "refund-failed id={} why={}", g->id, problem_of(e).message);
                me->state.paid(g, {}); // it expires by itself
              });
    return;
  }
  settle_inference bill;
  bill.request_id = g->id;
  bill.prompt_tokens = g->charged_late ? 0 : g->prompt.size();
  bill.completion_tokens = g->output.count() - g->charged_from;
  bill.driver = options.address;
  if (g->head_is_own)
    bill.validator = options.address;
  for (const auto& node : g->work) {
    if (node.node_id.empty())
      bill.workers.push_back({options.address, node.done, node.done, {}});
    else
      bill.workers.push_back({{}, node.done, 0, {}});
  }
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
            if (produced > 0) {
              g->count_work();
              g->work.clear();
            }
            then();
          },
          [g, then](const caf::error& e) {
            log::info(name, "goes-on-free id={} why={}", g->id, problem_of(e).message);
            if (g->at == generation::stage::routing)
              then();
          });
}

} // namespace neuroshard
