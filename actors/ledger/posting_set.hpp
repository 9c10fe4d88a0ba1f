#pragma once

#include "actors/ledger/account_book.hpp"

namespace neuroshard {

/// Adds up what a transaction does to each part of each account. Private to the book's sources.
class account_book::posting_set {
public:
  posting_set& add(std::string_view account, account_part part, neuro_amount amount) {
    return put(account, part, amount, false);
  }
  posting_set& take(std::string_view account, account_part part, neuro_amount amount) {
    return put(account, part, amount, true);
  }
  posting_set& mint(neuro_amount amount) { return take(mint_account, account_part::available, amount); }
  posting_set& burn(neuro_amount amount) { return add(burn_account, account_part::available, amount); }

  /// One posting per account and part, without those that come to nothing; nothing when a sum does not fit or
  /// the whole is not zero.
  std::optional<std::vector<posting>> netted() const;

private:
  struct line {
    std::string account;
    account_part part{};
    neuro_amount plus;
    neuro_amount minus;
  };
  posting_set& put(std::string_view account, account_part part, neuro_amount amount, bool negative);

  std::vector<line> lines_;
  bool overflow_ = false;
};

/// A refusal of a request's field.
caf::error refuse_field(std::string field, std::string reason, std::string message,
                        std::vector<std::pair<std::string, detail_value>> details = {});
/// INSUFFICIENT_BALANCE with its exact details.
caf::error refuse_funds(neuro_amount required, neuro_amount available);
/// Work that begins at weights no checkpoint on disk holds.
caf::error refuse_unknown_checkpoint();

// What a claim may say; far from where sums and products could overflow.
inline constexpr uint64_t steps_max = uint64_t{1} << 62;
inline constexpr uint64_t label_tokens_max = uint64_t{1} << 48;
inline constexpr uint32_t layers_max = 65'536;

inline constexpr int64_t undelivered_us = 120 * 1'000'000LL;
inline constexpr int64_t keyed_us = 24 * 3'600 * 1'000'000LL;

// How answers are kept for duplicates. The readers answer nothing when the text is not theirs.
std::string answer_text(const send_result& of);
std::string answer_text(const stake_result& of);
std::string answer_text(const unstake_result& of);
bool read_answer(std::string_view text, send_result& out);
bool read_answer(std::string_view text, stake_result& out);
bool read_answer(std::string_view text, unstake_result& out);

/// Opens a group where none is, runs the operation, and turns a failure of the store into its answer.
template <class Result, class Operation>
caf::expected<Result> account_book::operate(Operation&& operation) {
  if (auto failed = open_group())
    return failed;
  caf::expected<Result> result = operation();
  if (auto failed = store_fault())
    return failed; // The group is undone by commit.
  return result;
}

/// Executes a request that carries a mark at most once.
template <class Result, class Operation>
caf::expected<Result> account_book::once(const std::optional<request_mark>& mark, answer_kind kind,
                                         Operation&& operation) {
  return operate<Result>([&]() -> caf::expected<Result> {
    if (!mark)
      return operation();
    const auto stored = stored_answer(*mark);
    if (!stored)
      return stored.error();
    if (*stored) {
      Result first;
      if ((*stored)->kind != kind || !read_answer((*stored)->result, first))
        return refuse(errc::internal, "The stored answer of an identical request cannot be read.");
      first.origin = {true, (*stored)->id};
      return first;
    }
    caf::expected<Result> made = operation();
    if (made)
      made->origin.row = store().insert_answer(*mark, kind, answer_text(*made), now_us_);
    return made;
  });
}

} // namespace neuroshard
