// Offences and what they cost the book's own wallet (spec/economics.md section 6), and proofs that are
// refuted after they were paid for.
#include "actors/common/log.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/posting_set.hpp"
#include "actors/ledger/receipt_store.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

constexpr size_t evidence_bytes_max = 64 * 1024;
constexpr size_t refutation_bytes_max = 64;
constexpr int64_t us_per_hour = 3'600 * us_per_second;

struct penalty {
  neuro_amount amount;
  int64_t cooldown_us = 0;
  bool slashes = true; ///< otherwise it is only recorded
};

penalty penalty_for(const economics_params& params, offence_class what) {
  switch (what) {
  case offence_class::refuted_proof:
    return {params.slash_invalid_proof, us_per_hour, true};
  case offence_class::conflict:
    return {params.slash_conflict, 24 * us_per_hour, true};
  case offence_class::failed_spot_check:
    return {params.slash_spot_check_amount, 24 * us_per_hour, params.slash_spot_check};
  }
  return {{}, 0, false};
}

} // namespace

const char* to_string(offence_class what) noexcept {
  switch (what) {
  case offence_class::refuted_proof:
    return "refuted_proof";
  case offence_class::conflict:
    return "conflict";
  case offence_class::failed_spot_check:
    return "failed_spot_check";
  }
  return "";
}

caf::expected<offence_result> account_book::apply(const record_offence& what) {
  return operate<offence_result>([&]() -> caf::expected<offence_result> {
    if (what.what < offence_class::refuted_proof || what.what > offence_class::failed_spot_check)
      return refuse_field("what", "out_of_range", "This class of offence is not known.");
    if (!is_lower_hex(what.node_id, 32))
      return refuse_field("node_id", "malformed", "A node id is 32 hex digits.");
    if (parse_address(what.wallet) != what.wallet)
      return refuse_field("wallet", "invalid_address", "The offender's wallet is no address.");
    if (what.evidence.empty() || what.evidence.size() > evidence_bytes_max)
      return refuse_field("evidence", "out_of_range", "Evidence has 1 byte to 64 KiB.");
    offence_row row;
    row.id = kernels::sha256::of(std::string_view(what.evidence));
    const std::string name = kernels::to_hex(row.id);
    auto& receipts = store().receipts();
    if (const auto old = receipts.offence(row.id))
      return offence_result{true, name, old->transaction_id, old->slashed};
    row.what = what.what;
    row.node_id = what.node_id;
    row.wallet = what.wallet;
    row.recorded_us = now_us_;
    row.evidence = what.evidence;

    offence_result result{false, name, {}, {}};
    const auto costs = penalty_for(params(), what.what);
    const auto last = receipts.last_slash_us(wallet_, what.what);
    // Only the wallet whose stake this book keeps can be slashed in it.
    if (what.wallet == wallet_ && costs.slashes && (!last || now_us_ - *last >= costs.cooldown_us)) {
      const auto made = slash(costs.amount, {{"offence", name}, {"class", to_string(what.what)}});
      if (!made)
        return made.error();
      row.seq = made->seq;
      row.slashed = result.slashed = made->amount;
      result.transaction_id = kernels::to_hex(made->id);
      write_transactions(); // The row of the offence refers to it.
      log::warn("ledger", "slashed amount={} class={} offence={}", to_decimal(made->amount),
                to_string(what.what), name);
    }
    receipts.insert(row);
    return result;
  });
}

caf::expected<transaction> account_book::slash(neuro_amount most, reference_list refs) {
  const account_row before = own();
  neuro_amount rest = most;
  const auto taken_of = [&](neuro_amount there) {
    const neuro_amount part = std::min(rest, there);
    rest.atto -= part.atto;
    return part;
  };
  const neuro_amount staked = taken_of(before.staked);
  auto cooling = store().open_unstakes();
  std::stable_sort(cooling.begin(), cooling.end(),
                   [](const auto& a, const auto& b) { return a.release_day < b.release_day; });
  auto maturing = store().pending_rewards(); // In the order in which they mature.
  neuro_amount pending;
  const auto take_from = [&](auto& row) {
    const neuro_amount part = taken_of(row.left());
    row.slashed.atto += part.atto;
    pending.atto += part.atto;
    return part.atto != 0;
  };
  std::erase_if(cooling, [&](auto& row) { return !take_from(row); });
  std::erase_if(maturing, [&](auto& row) { return !take_from(row); });
  const neuro_amount available = taken_of(before.available);

  const neuro_amount taken{most.atto - rest.atto};
  posting_set postings;
  postings.take(wallet_, account_part::staked, staked)
      .take(wallet_, account_part::pending, pending)
      .take(wallet_, account_part::available, available)
      .burn(taken);
  auto made = record({transaction_kind::slash,
                      wallet_,
                      std::string(burn_account),
                      taken,
                      {},
                      taken,
                      {},
                      std::move(refs),
                      history_type::slash},
                     postings);
  if (!made)
    return made;
  if (staked.atto != 0 && staked == before.staked)
    store().save_lock(before.id, std::nullopt);
  for (const auto& row : cooling) {
    store().receipts().slash_unstake(row.id, row.slashed);
    if (row.left().atto == 0)
      store().end_unstake(row.id, made->seq);
  }
  for (const auto& row : maturing) {
    store().receipts().slash_reward(row.id, row.slashed);
    if (row.left().atto == 0)
      store().end_reward(row.id, reward_state::voided, made->seq);
  }
  return made;
}

caf::expected<void_result> account_book::apply(const void_reward& what) {
  return operate<void_result>([&]() -> caf::expected<void_result> {
    digest id{};
    if (!is_lower_hex(what.proof_id, 64) || !from_hex(what.proof_id, id.data(), id.size()))
      return refuse_field("proof_id", "malformed", "A proof id is 64 hex digits.");
    const auto word = [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; };
    if (what.reason.empty() || what.reason.size() > refutation_bytes_max ||
        !std::all_of(what.reason.begin(), what.reason.end(), word))
      return refuse_field("reason", "malformed", "What refutes a proof is one word of [a-z_].");
    const auto standing = store().proofs().standing(id);
    if (!standing) {
      problem none;
      none.message = "No proof of this id is in the book.";
      none.field = "proof_id";
      none.details = {{"resource", std::string("proof")}, {"identifier", what.proof_id}};
      return refuse(errc::not_found, std::move(none));
    }
    if (!standing->accepted) {
      problem never;
      never.message = "This proof was refused when it was recorded: it has no reward.";
      never.field = "proof_id";
      never.reason = "refused";
      return refuse(errc::failed_precondition, std::move(never));
    }
    void_result result;
    result.known_before = !standing->refuted.empty();
    neuro_amount left; // What was minted and stays in the proof's count.
    for (const auto& row : store().rewards_of_proof(what.proof_id)) {
      // All of these are parts of one proof's reward: they fit.
      if (row.state == reward_state::matured) {
        result.matured.atto += row.left().atto;
        left.atto += row.amount.atto;
      } else {
        result.burned.atto += row.left().atto;
      }
      if (row.state != reward_state::pending)
        continue;
      posting_set postings;
      postings.take(wallet_, account_part::pending, row.left()).burn(row.left());
      const auto made = record({transaction_kind::reward_void,
                                wallet_,
                                std::string(burn_account),
                                row.left(),
                                {},
                                row.left(),
                                {},
                                {{"reward", row.transaction_id}, {"proof", row.proof_id}},
                                {}},
                               postings);
      if (!made)
        return made.error();
      store().end_reward(row.id, reward_state::voided, made->seq);
    }
    if (!result.known_before) {
      store().proofs().refute(id, *standing, what.reason, left);
      log::warn("ledger", "proof-refuted id={} by={} burned={} matured={}", what.proof_id, what.reason,
                to_decimal(result.burned), to_decimal(result.matured));
    }
    return result;
  });
}

} // namespace neuroshard
