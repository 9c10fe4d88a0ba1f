#include "actors/inference_scheduler/route_work.hpp"

#include <algorithm>

namespace neuroshard {

const route_work::part* route_work::find(const std::string& session_id, const std::string& node_id) const {
  const auto found = std::find_if(parts_.begin(), parts_.end(), [&](const part& one) {
    return one.node_id == node_id && one.session_id == session_id;
  });
  return found == parts_.end() ? nullptr : &*found;
}

route_work::part& route_work::at(const std::string& session_id, const route_hop& hop, bool own) {
  const std::string session = hop.local ? std::string() : session_id;
  const std::string node = hop.local ? std::string() : hop.node_id;
  if (const auto* known = find(session, node))
    return parts_[static_cast<size_t>(known - parts_.data())];
  auto& made = parts_.emplace_back();
  made.session_id = session;
  made.node_id = node;
  made.own = own || hop.local;
  made.layer_begin = hop.layer_begin;
  made.layer_end = hop.layer_end;
  return made;
}

void route_work::sent(const std::string& session_id, const model_route& route, uint32_t layers,
                      uint64_t model_version, uint64_t positions) {
  for (const auto& hop : route.hops) {
    auto& one = at(session_id, hop, route.own_layers_only);
    one.sent += positions;
    one.model_version = model_version;
    one.embedding = one.embedding || &hop == &route.hops.front();
    one.head = one.head || (&hop == &route.hops.back() && hop.layer_end == layers);
  }
}

void route_work::done(const std::string& session_id, const model_route& route, uint64_t positions) {
  for (const auto& hop : route.hops) {
    auto& one = at(session_id, hop, route.own_layers_only);
    one.done += positions * (hop.layer_end - hop.layer_begin);
    head_session_ = one.session_id;
    head_node_ = one.node_id; // the last one stays
  }
}

void route_work::begin_charge() {
  for (auto& one : parts_)
    one.done = 0;
}

std::optional<receipt_terms> route_work::terms_of(const std::string& work_id, const std::string& session_id,
                                                  const std::string& node_id) const {
  const auto* one = find(session_id, node_id);
  if (!one || one->receipt)
    return std::nullopt;
  return receipt_terms{node_id,
                       receipt_kind::inference,
                       work_id,
                       one->layer_begin,
                       one->layer_end,
                       one->embedding,
                       one->head,
                       one->sent,
                       0,
                       one->model_version};
}

void route_work::recorded(const std::string& session_id, const std::string& node_id,
                          const countersigned_receipt& from) {
  const auto* known = find(session_id, node_id);
  const paid_by by{kernels::to_hex(from.id), from.wallet, from.what.work(), from.what.head};
  // A node that gives the receipt of one session for another too is paid for one.
  if (known && !known->receipt && std::none_of(parts_.begin(), parts_.end(), [&](const part& one) {
        return one.receipt && one.receipt->id == by.id;
      }))
    parts_[static_cast<size_t>(known - parts_.data())].receipt = by;
}

void route_work::bill(settle_inference& to, const std::string& wallet) const {
  to.driver = wallet;
  const auto* head = find(head_session_, head_node_);
  if (!head || head->own) {
    to.validator = wallet;
  } else if (head->receipt && head->receipt->head) {
    to.validator = head->receipt->wallet;
    to.validator_receipt_id = head->receipt->id;
  }
  uint64_t own = 0;
  for (const auto& one : parts_)
    own += one.own ? one.done : 0;
  if (own > 0)
    to.workers.push_back({wallet, own, own, {}});
  for (const auto& one : parts_) {
    if (one.own || one.done == 0)
      continue;
    const auto by = one.receipt.value_or(paid_by{});
    to.workers.push_back({by.wallet, one.done, std::min(one.done, by.work), by.id});
  }
}

} // namespace neuroshard
