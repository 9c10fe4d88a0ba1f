// Receipts for work that nodes did for each other, and what a settlement asks of them (spec/economics.md
// sections 7 and 8).
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/posting_set.hpp"
#include "actors/ledger/receipt_store.hpp"

#include <set>

namespace neuroshard {

namespace {

caf::error refuse_receipt(errc code, const char* reason, const char* message) {
  problem what;
  what.message = message;
  what.field = "worker_blob";
  what.reason = reason;
  return refuse(code, std::move(what));
}

} // namespace

caf::expected<receipt_recorded> account_book::apply(const record_receipt& what) {
  return operate<receipt_recorded>([&]() -> caf::expected<receipt_recorded> {
    auto read = read_receipt(what.worker_blob, what.driver_blob, now_us_ / 1'000);
    if (!read)
      return read.error();
    receipt_row row;
    row.own = read->what.worker_node_id == options_.identity->node_id();
    if (!row.own && read->what.driver_node_id != options_.identity->node_id())
      return refuse_receipt(errc::forbidden, "not_a_party", "This node neither did nor drove this work.");
    // Whoever passes a node's word on could leave its delegation out: then the wallet would be another.
    if (row.own && read->worker.address != wallet_)
      return refuse_receipt(errc::unauthorized, "wrong_signer", "The receipt is not of this node's wallet.");
    row.what = std::move(read->what);
    row.id = read->id;
    row.confirmed = read->driver.has_value();
    row.received_us = now_us_;
    row.worker_blob = what.worker_blob;
    row.driver_blob = what.driver_blob;
    row.worker_wallet = read->worker.address;
    row.driver_wallet = read->driver ? read->driver->address : std::string();

    auto& receipts = store().receipts();
    if (const auto old = receipts.receipt_of(row.id)) {
      // The same words signed again, say with a renewed delegation, are no other receipt.
      if (old->confirmed || !row.confirmed)
        return receipt_recorded{row.id, old->confirmed, true};
      receipts.confirm(row);
      return receipt_recorded{row.id, true, true};
    }
    if (const auto other = receipts.same_work(row.what)) {
      problem conflict;
      conflict.message = "The worker signed another receipt for this work.";
      conflict.field = "worker_blob";
      conflict.reason = "conflicting_receipt";
      conflict.details = {{"receipt_id", kernels::to_hex(*other)}};
      return refuse(errc::already_exists, std::move(conflict));
    }
    receipts.insert(row);
    return receipt_recorded{row.id, row.confirmed, false};
  });
}

caf::expected<std::optional<receipt>> account_book::receipt_of_share(const std::string& request_id,
                                                                     const std::string& address,
                                                                     const std::string& receipt_id,
                                                                     const char* field) {
  const auto wrong = [&](const char* reason, const char* message) {
    return refuse_field(field, reason, message);
  };
  if (address.empty() || receipt_id.empty())
    return std::optional<receipt>();
  digest id{};
  if (!is_lower_hex(receipt_id, 64) || !from_hex(receipt_id, id.data(), id.size()))
    return wrong("malformed", "A receipt id is 64 hex digits.");
  auto row = store().receipts().receipt_of(id);
  if (!row)
    return wrong("unknown_receipt", "A share names a receipt that is not in the book.");
  if (!row->confirmed || row->what.driver_node_id != options_.identity->node_id())
    return wrong("unconfirmed_receipt", "A share names a receipt that this node has not counter-signed.");
  if (row->what.kind != receipt_kind::inference || row->what.work_id != request_id)
    return wrong("other_work", "A share names a receipt for other work.");
  if (row->worker_wallet != address)
    return wrong("other_wallet", "A share names a receipt of another wallet.");
  return std::optional(std::move(row->what));
}

caf::error account_book::check_shares(const settle_inference& what, std::vector<std::string>& addresses) {
  const auto by_role = [&](std::string& address, const std::string& receipt_id, const char* field,
                           bool receipt::*role) -> caf::error {
    const auto got = receipt_of_share(what.request_id, address, receipt_id, field);
    if (!got)
      return got.error();
    if (*got && !(**got.*role))
      return refuse_field(field, "other_role", "The receipt does not say that its node had this role.");
    if (!*got && address != wallet_)
      address.clear();
    return {};
  };
  if (auto wrong = by_role(addresses[0], what.driver_receipt_id, "driver_receipt_id", &receipt::embedding))
    return wrong;
  if (auto wrong = by_role(addresses[1], what.validator_receipt_id, "validator_receipt_id", &receipt::head))
    return wrong;
  std::set<std::string_view> used;
  for (size_t i = 0; i < what.workers.size(); ++i) {
    const auto& worker = what.workers[i];
    std::string& address = addresses[2 + i];
    const auto got = receipt_of_share(what.request_id, address, worker.receipt_id, "workers");
    if (!got)
      return got.error();
    if (*got && worker.credited_work > (*got)->work())
      return refuse_field("workers", "above_receipt",
                          "A worker is credited with more than its receipt says.");
    if (*got && !used.insert(worker.receipt_id).second)
      return refuse_field("workers", "receipt_repeated", "Two shares name the same receipt.");
    if (!*got && address != wallet_)
      address.clear();
  }
  return {};
}

} // namespace neuroshard
