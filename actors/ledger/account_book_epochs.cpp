// Epochs: what the book holds of each minute, closed and signed (spec/economics.md section 10).
#include "actors/common/log.hpp"
#include "actors/ledger/account_book.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

/// An epoch is closed this long after its end: proofs of its last seconds are still on their way.
constexpr int64_t closing_delay_us = 10 * us_per_second;

} // namespace

int64_t account_book::last_closable() const {
  return (now_us_ - closing_delay_us) / epoch_us - 1;
}

epoch_link account_book::link() const {
  return last_epoch_.value_or(epoch_link{chain_id_, 0, 0, chain_id_});
}

caf::error account_book::close_epochs(size_t most) {
  const int64_t closable = last_closable();
  if (closable <= looked_at_epoch_)
    return {};
  // The rows of this group are not in the store before they are chained and signed.
  write_transactions();
  auto& store = this->store().proofs();
  for (size_t closed = 0; closed < most; ++closed) {
    const epoch_link after = link();
    const auto id = store.next_minute(after);
    if (!id || static_cast<int64_t>(*id) > closable || store_->fault()) {
      looked_at_epoch_ = closable;
      break;
    }
    // The parameters in force at its start; a change comes into force at the beginning of a minute.
    const int64_t start_us = static_cast<int64_t>(*id) * epoch_us;
    auto in_force = std::find_if(params_.rbegin(), params_.rend(),
                                 [&](const params_row& row) { return row.from_us <= start_us; });
    const auto& params = in_force == params_.rend() ? params_.front().params : in_force->params;
    const epoch_record made = epoch_of(*id, store.content(*id, after), after, chain_id_, params);
    epoch_row row;
    row.id = *id;
    row.previous_hash = made.prev_epoch_hash;
    row.start_us = made.start_us;
    row.end_us = made.end_us;
    row.last_seq = made.last_seq;
    row.signed_record = options_.identity->sign_as_node(epoch_tag, canonical_payload(made));
    row.hash = epoch_hash_of(row.signed_record.payload);
    store.insert_epoch(row);
    last_epoch_ = epoch_link{row.hash, row.end_us, made.last_seq, made.last_row_hash};
  }
  return store_->fault();
}

} // namespace neuroshard
