#include "actors/ledger/account_book.hpp"

#include "actors/common/log.hpp"
#include "actors/ledger/book_check.hpp"
#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/posting_set.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

constexpr size_t held_accounts_max = 65'536;
constexpr uint64_t check_every_transactions = 1'000;
constexpr int64_t us_per_minute = 60 * us_per_second;
constexpr int64_t forget_every_us = us_per_minute;
constexpr size_t delivered_max = 4'096;
constexpr size_t epochs_at_open = 10'000;
constexpr size_t epochs_at_once = 64;

neuro_amount& part_of(account_row& row, account_part part) {
  switch (part) {
  case account_part::staked:
    return row.staked;
  case account_part::pending:
    return row.pending;
  default:
    return row.available;
  }
}

neuro_amount& part_of(totals_row& totals, account_part part) {
  switch (part) {
  case account_part::staked:
    return totals.staked;
  case account_part::pending:
    return totals.pending;
  default:
    return totals.available;
  }
}

/// What an operation would make of a balance; nothing when it would fall below zero or not fit.
std::optional<neuro_amount> moved(neuro_amount balance, const posting& by) {
  return by.negative ? checked_sub(balance, by.amount) : checked_add(balance, by.amount);
}

/// `mint` counts what was made: it grows where its posting is negative.
posting as_counted(posting of) {
  of.negative = of.negative != (of.account == mint_account);
  return of;
}

} // namespace

account_book::account_book(std::unique_ptr<ledger_store> store, ledger_options options)
    : store_(std::move(store)), options_(std::move(options)), wallet_(options_.identity->address()),
      crew_(options_.identity, signing_crew::threads_here()), writer_(*store_, crew_) {}

account_book::~account_book() = default;

// -- opening
// -----------------------------------------------------------------------------------------------------

caf::error account_book::open() {
  now_us_ = std::max<int64_t>(options_.clock->unix_us(), 0);
  if (auto failed = check_beginning())
    return failed;
  reload();
  if (auto failed = store_->fault())
    return failed;
  if (auto failed = check_balances())
    return failed;
  last_due_minute_ = -1;
  if (auto failed = open_group())
    return failed;
  if (auto failed = refund_expired(true))
    return failed;
  if (auto due = run_due(); !due)
    return due.error();
  if (auto failed = close_epochs(epochs_at_open))
    return failed;
  return commit();
}

caf::error account_book::check_beginning() {
  const auto wrong = [](const char* reason, std::string message) {
    problem what;
    what.message = std::move(message);
    what.reason = reason;
    return refuse(errc::failed_precondition, std::move(what));
  };
  if (!store_->begin())
    return store_->fault();
  auto genesis = store_->genesis();
  if (!genesis && !store_->fault()) {
    genesis = genesis_record{options_.network, params_hash(options_.params),
                             options_.identity->node_public_key(), now_us_, wallet_};
    store_->insert_genesis(*genesis, chain_id_of(*genesis));
    store_->insert_params({0, options_.params});
    store_->save_totals({});
    account_row mint{0, std::string(mint_account), {}, {}, {}, 0},
        burn{0, std::string(burn_account), {}, {}, {}, 0};
    account_row own{0, wallet_, {}, {}, {}, 0};
    for (account_row* each : {&mint, &burn, &own})
      store_->save_account(*each);
  }
  if (auto failed = store_->fault())
    return failed;
  if (genesis->wallet != wallet_)
    return wrong("other_wallet", "ledger.db belongs to wallet " + genesis->wallet + ", not to " + wallet_ +
                                     "; use another data directory for this wallet.");
  if (genesis->network != options_.network)
    return wrong("other_network", "ledger.db belongs to network '" + genesis->network + "', not to '" +
                                      options_.network + "'; use another data directory.");
  if (genesis->node_key != options_.identity->node_public_key())
    return wrong("other_node", "ledger.db is kept by node " + node_id_of(genesis->node_key) +
                                   " of this wallet, not by " + options_.identity->node_id() +
                                   "; each node instance has a data directory of its own.");
  chain_id_ = chain_id_of(*genesis);
  params_ = store_->params();
  if (params_.empty() || params_.front().from_us != 0)
    return store_->fault() ? store_->fault() : refuse(errc::data_loss, "ledger.db has lost its parameters.");
  // The book's time: the clock may be behind the newest transaction.
  if (const auto newest = store_->head())
    now_us_ = std::max(now_us_, newest->timestamp_us);
  // In force from the next minute on: an epoch has one set of parameters. Those of a start with the clock
  // ahead never were, and go.
  int64_t next_minute = (now_us_ / us_per_minute + 1) * us_per_minute;
  if (const auto closed = store_->proofs().last_epoch()) // Nothing is in the minute after it yet.
    next_minute = std::max(next_minute, closed->end_us);
  if (!(params_.back().params == options_.params) || params_.back().from_us > next_minute) {
    std::erase_if(params_, [&](const params_row& row) { return row.from_us >= next_minute; });
    params_.push_back({next_minute, options_.params});
    store_->insert_params(params_.back());
    log::info("ledger", "params-changed hash={}", kernels::to_hex(params_hash(options_.params)));
  }
  if (!store_->commit())
    return store_->fault();
  return {};
}

caf::error account_book::check_balances() {
  // Accounts against totals and the newest transactions against their hashes; `neuroshard ledger verify` does
  // all of them.
  const auto found = check_recent(options_.path);
  if (!found)
    return found.error();
  if (!found->empty())
    return refuse(errc::data_loss, "The ledger is not in order: " + found->front() + ".");
  const neuro_amount pending = own().pending;
  if (open_pending() != pending)
    return refuse(errc::data_loss, "The ledger is not in order: the wallet's pending " + to_decimal(pending) +
                                       " NEURO are not the sum of what is pending.");
  return store_->fault();
}

void account_book::reload() {
  changed_.clear();
  accounts_.clear();
  totals_ = store_->totals();
  const auto head = store_->head();
  head_ = head.value_or(head_row{0, chain_id_, 0});
  writer_.set_head(head_.hash);
  now_us_ = std::max(now_us_, head_.timestamp_us);
  open_reservations_ = store_->open_reservations().size();
  // No transaction is dated into a closed epoch, whatever the clock says now.
  last_epoch_ = store_->proofs().last_epoch();
  if (last_epoch_)
    now_us_ = std::max(now_us_, last_epoch_->end_us);
  looked_at_epoch_ = -1;
  checked_seq_ = head_.seq;
}

neuro_amount account_book::open_pending() {
  neuro_amount sum;
  const auto add = [&](neuro_amount part) { sum = checked_add(sum, part).value_or(sum); };
  for (const auto& row : store().open_unstakes())
    add(row.left());
  for (const auto& row : store().open_reservations())
    add(row.reserved);
  for (const auto& row : store().pending_rewards())
    add(row.left());
  return sum;
}

// -- groups
// ------------------------------------------------------------------------------------------------------

caf::error account_book::open_group() {
  if (closed_)
    return refuse(errc::draining, "The ledger is closed.");
  if (!fault_.empty()) {
    problem what;
    what.message = fault_;
    what.reason = "ledger_stopped";
    return refuse(errc::storage, std::move(what));
  }
  advance_time();
  if (in_group_)
    return store_fault();
  if (!under_way_) {
    if (!store_->begin()) {
      const caf::error failed = store_->fault();
      store_->rollback();
      return failed;
    }
    begun_ = true;
  }
  in_group_ = true;
  return {};
}

ledger_store& account_book::store() {
  writer_.wait();
  if (in_group_ && !begun_)
    begun_ = store_->begin(); // Does nothing where the group before has failed; `end_commit` tells of that.
  return *store_;
}

caf::error account_book::store_fault() const {
  return writer_.busy() ? caf::error{} : store_->fault();
}

caf::expected<group_rest> account_book::take_rest() {
  store();
  write_delivered();
  if (head_.seq >= checked_seq_ + check_every_transactions && fault_.empty()) {
    checked_seq_ = head_.seq;
    const auto parts = checked_add(totals_.available, totals_.staked);
    const auto sum = parts ? checked_add(*parts, totals_.pending) : std::nullopt;
    if (!sum || sum != checked_sub(totals_.minted, totals_.burned) || open_pending() != own().pending)
      return stop("The ledger's balances do not add up; no further operation is taken.");
  }
  group_rest rest;
  rest.transactions = std::exchange(unwritten_, {});
  rest.accounts.reserve(changed_.size());
  for (held_account* held : changed_) {
    rest.accounts.push_back(held->row);
    held->changed = false;
  }
  changed_.clear();
  rest.totals = totals_;
  // Whoever asks for one again waits until it is written.
  if (accounts_.size() > held_accounts_max)
    accounts_.clear();
  in_group_ = begun_ = false;
  return rest;
}

caf::error account_book::commit() {
  if (auto failed = end_commit())
    return failed;
  if (!in_group_)
    return {};
  auto rest = take_rest();
  const caf::error failed = rest ? writer_.write(*rest) : rest.error();
  head_.hash = writer_.head();
  return failed ? undo(failed) : caf::error{};
}

caf::error account_book::start_commit(std::function<void()> written) {
  auto rest = take_rest();
  if (!rest)
    return undo(rest.error());
  under_way_ = true;
  writer_.start(std::move(*rest), std::move(written));
  return {};
}

caf::error account_book::end_commit() {
  if (!std::exchange(under_way_, false))
    return {};
  const caf::error failed = writer_.outcome();
  head_.hash = writer_.head();
  return failed ? undo(failed) : caf::error{};
}

caf::error account_book::undo(const caf::error& failed) {
  if (!unwritten_.empty())
    crew_.finish(unwritten_.back().ticket);
  unwritten_.clear();
  in_group_ = begun_ = false;
  store_->rollback();
  log::error("ledger", "group-undone path={} reason=\"{}\"", options_.path, problem_of(failed).message);
  reload();
  if (store_->fault()) {
    // Not even readable any more: what is held in memory is not to be trusted.
    fault_ = problem_of(store_->fault()).message;
    store_->rollback();
  }
  return failed;
}

caf::error account_book::close() {
  if (closed_)
    return {};
  caf::error failed = end_commit();
  if (!delivered_.empty() && fault_.empty())
    if (auto refused = open_group())
      failed = refused;
  if (auto undone = commit())
    failed = undone;
  closed_ = true;
  store_->close();
  return failed;
}

caf::error account_book::stop(std::string why) {
  fault_ = std::move(why);
  log::error("ledger", "stopped reason=\"{}\"", fault_);
  problem what;
  what.message = fault_;
  what.reason = "ledger_stopped";
  return refuse(errc::storage, std::move(what));
}

void account_book::advance_time() {
  now_us_ = std::max(now_us_, options_.clock->unix_us());
}

const economics_params& account_book::params() const {
  // The last row that is in force; few rows, and nearly always the last.
  for (size_t i = params_.size(); i-- > 1;)
    if (params_[i].from_us <= now_us_)
      return params_[i].params;
  return params_.front().params;
}

// -- transactions
// ------------------------------------------------------------------------------------------------

account_book::held_account& account_book::account(const std::string& address) {
  if (const auto found = accounts_.find(address); found != accounts_.end())
    return found->second;
  held_account held;
  if (auto row = store().account(address))
    held.row = std::move(*row);
  else
    held.row.address = address;
  return accounts_.emplace(address, std::move(held)).first->second;
}

void account_book::note_changed(held_account& held) {
  if (!std::exchange(held.changed, true))
    changed_.push_back(&held);
}

account_row account_book::own() {
  return account(wallet_).row;
}

caf::expected<transaction> account_book::record(draft from, const posting_set& set) {
  auto postings = set.netted();
  if (!postings)
    return refuse(errc::internal, "A transaction does not sum to zero.");
  // First what every part would become, then the changes: a refusal here leaves nothing half done.
  totals_row totals = totals_;
  for (const auto& each : *postings) {
    const posting change = as_counted(each);
    auto& row = account(each.account).row;
    neuro_amount& total = each.account == mint_account   ? totals.minted
                          : each.account == burn_account ? totals.burned
                                                         : part_of(totals, each.part);
    const auto balance = moved(part_of(row, each.part), change), sum = moved(total, change);
    if (!balance || !sum)
      return refuse(errc::internal, "A transaction would take a balance out of its range.");
    total = *sum;
  }
  transaction made;
  made.seq = head_.seq + 1;
  made.kind = from.kind;
  made.from = std::move(from.from);
  made.to = std::move(from.to);
  made.amount = from.amount;
  made.fee = from.fee;
  made.burned = from.burned;
  made.timestamp_us = now_us_;
  made.memo = std::move(from.memo);
  made.refs = std::move(from.refs);
  if (is_signed(made.kind)) {
    auto& own_account = account(wallet_);
    made.nonce = ++own_account.row.nonce;
    note_changed(own_account);
    made.key = options_.identity->wallet_public_key();
  }
  std::string payload = canonical_payload(made, chain_id_);
  made.id = kernels::sha256::of(std::string_view(payload));

  const auto id_of = [&](const std::string& address) -> int64_t {
    if (address.empty())
      return 0;
    auto& held = account(address);
    if (held.row.id == 0)
      store().save_account(held.row);
    return held.row.id;
  };
  std::vector<int64_t> ids;
  for (const auto& each : *postings) {
    ids.push_back(id_of(each.account));
    auto& held = account(each.account);
    neuro_amount& balance = part_of(held.row, each.part);
    balance = *moved(balance, as_counted(each));
    note_changed(held);
  }
  totals_ = totals;
  auto& waits = unwritten_.emplace_back(unwritten_transaction{
      made, std::move(payload), 0, id_of(made.from), id_of(made.to), std::move(*postings), std::move(ids),
      from.seen_as, from.seen_as ? id_of(wallet_) : 0, day_of(now_us_)});
  if (is_signed(made.kind))
    waits.ticket = crew_.add(waits.payload, waits.row.sig.emplace());
  head_.seq = made.seq;
  head_.timestamp_us = now_us_;
  return made;
}

void account_book::write_transactions() {
  store();
  writer_.append(unwritten_);
  head_.hash = writer_.head();
}

// -- sending
// -----------------------------------------------------------------------------------------------------

caf::expected<send_result> account_book::apply(const send_neuro& what) {
  return once<send_result>(what.mark, answer_kind::send, [&]() -> caf::expected<send_result> {
    if (what.amount.atto == 0)
      return refuse_field("amount", "zero", to_string(amount_error::zero));
    if (what.memo.size() > memo_bytes_max)
      return refuse_field("memo", "too_long", "The memo is longer than 256 bytes.",
                          {{"max", static_cast<int64_t>(memo_bytes_max)}});
    const auto to = parse_address(what.to);
    if (!to)
      return refuse_field("to", "invalid_address",
                          "The recipient is no address: 0x and 40 hex digits are needed.");
    if (is_zero_address(*to))
      return refuse_field("to", "zero_address", "Nothing can be sent to the zero address.");
    if (*to == wallet_)
      return refuse_field("to", "own_address", "The recipient is the sender.");
    const auto fee = rules::transfer_fee(params(), what.amount);
    const auto required = fee ? checked_add(what.amount, *fee) : std::nullopt;
    if (!required)
      return refuse_field("amount", "overflow", to_string(amount_error::overflow));
    const neuro_amount available = own().available;
    if (available < *required)
      return refuse_funds(*required, available);
    posting_set postings;
    postings.take(wallet_, account_part::available, *required)
        .add(*to, account_part::available, what.amount)
        .burn(*fee);
    const auto made = record({transaction_kind::transfer,
                              wallet_,
                              *to,
                              what.amount,
                              *fee,
                              *fee,
                              what.memo,
                              {},
                              history_type::send},
                             postings);
    if (!made)
      return made.error();
    return send_result{{},        kernels::to_hex(made->id), wallet_, *to, what.amount, *fee,
                       what.memo, made->timestamp_us};
  });
}

// -- duplicate suppression
// ---------------------------------------------------------------------------------------

caf::expected<std::optional<answer_row>> account_book::stored_answer(const request_mark& mark) {
  const auto printable = [](char c) { return c >= 0x20 && c <= 0x7e; };
  if (mark.key.size() > 128 || !std::all_of(mark.key.begin(), mark.key.end(), printable))
    return refuse_field("Idempotency-Key", "malformed",
                        "Idempotency-Key has 1 to 128 printable ASCII characters.");
  write_delivered();
  if (mark.key.empty())
    return store().undelivered_answer(mark, now_us_ - undelivered_us);
  auto stored = store().answer_by_key(mark, now_us_ - keyed_us);
  if (stored && !equal_digests(stored->body, mark.body))
    return refuse_field("Idempotency-Key", "key_reused",
                        "This Idempotency-Key was used with another body within the last 24 hours.");
  return stored;
}

caf::expected<found_response> account_book::apply(const find_response& what) {
  return operate<found_response>([&]() -> caf::expected<found_response> {
    auto stored = stored_answer(what.mark);
    if (!stored)
      return stored.error();
    if (!*stored || (*stored)->kind != answer_kind::response)
      return found_response{};
    return found_response{true, (*stored)->id, std::move((*stored)->result)};
  });
}

caf::expected<found_response> account_book::apply(const keep_response& what) {
  return operate<found_response>([&]() -> caf::expected<found_response> {
    if (what.response.size() > response_bytes_max)
      return refuse_field("response", "too_long", "A response of more than 1 MiB is not kept.");
    const int64_t row = store().insert_answer(what.mark, answer_kind::response, what.response, now_us_);
    return found_response{true, row, what.response};
  });
}

void account_book::mark_delivered(int64_t row) {
  if (row > 0 && !closed_ && delivered_.size() < delivered_max)
    delivered_.push_back(row);
}

void account_book::write_delivered() {
  for (const int64_t row : delivered_)
    store().mark_delivered(row);
  delivered_.clear();
}

// -- what time brings
// --------------------------------------------------------------------------------------------

caf::expected<bool> account_book::run_due() {
  advance_time();
  const bool new_minute = now_us_ / us_per_minute != last_due_minute_;
  const bool forgets = now_us_ - last_forget_us_ >= forget_every_us;
  const bool closes = last_closable() > looked_at_epoch_;
  if (!new_minute && open_reservations_ == 0 && delivered_.empty() && !forgets && !closes)
    return in_group_;
  const auto done = operate<bool>([&]() -> caf::expected<bool> {
    if (auto failed = refund_expired(false))
      return failed;
    if (new_minute)
      if (auto failed = release_due())
        return failed;
    if (forgets) {
      store().forget_answers(now_us_ - undelivered_us, now_us_ - keyed_us);
      store().proofs().forget_commitments(now_us_ - commitments_kept_us);
    }
    if (auto failed = close_epochs(epochs_at_once))
      return failed;
    return true;
  });
  if (!done)
    return done.error();
  last_due_minute_ = now_us_ / us_per_minute;
  if (forgets)
    last_forget_us_ = now_us_;
  return in_group_;
}

} // namespace neuroshard
