#pragma once

#include "actors/common/money.hpp"
#include "actors/identity/keys.hpp"
#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What is written in the book, and the bytes that are hashed and signed (spec/economics.md sections 2 to 4).
namespace neuroshard {

inline constexpr std::string_view transaction_tag = "neuroshard-tx-v1";
inline constexpr std::string_view mint_account = "mint";
inline constexpr std::string_view burn_account = "burn";
inline constexpr size_t memo_bytes_max = 256;

/// Numbers are stored: they never change their meaning.
enum class transaction_kind : uint8_t {
  transfer = 1,
  stake,
  unstake,
  unstake_release,
  reward,
  reward_mature,
  reward_void,
  infer_reserve,
  infer_settle,
  infer_refund,
  slash,
};
const char* to_string(transaction_kind kind) noexcept;
/// Whether the wallet signs it: transfer, stake, unstake.
bool is_signed(transaction_kind kind) noexcept;

enum class account_part : uint8_t { available = 1, staked, pending };
const char* to_string(account_part part) noexcept;

/// One line of a transaction: what it adds to, or takes from, a part of an account. Those of `mint` and
/// `burn` are in `available`.
struct posting {
  std::string account;
  account_part part{};
  bool negative = false;
  neuro_amount amount;
};

/// name, id: `request`, `proof`, `reward`, `unstake`, `start`, `unlock`, ... Neither holds ':' or ','.
using reference_list = std::vector<std::pair<std::string, std::string>>;

struct transaction {
  uint64_t seq = 0;
  transaction_kind kind{};
  std::string from;
  std::string to;
  neuro_amount amount;
  neuro_amount fee;
  neuro_amount burned;
  uint64_t nonce = 0; ///< 0 for kinds that are not signed
  int64_t timestamp_us = 0;
  std::string memo;
  reference_list refs;
  std::optional<public_key> key;
  std::optional<signature> sig;
  kernels::digest id{};
  kernels::digest hash{};
};

/// Everything outside [A-Za-z0-9._-] as %XX, upper-case hex.
std::string percent_encoded(std::string_view text);
std::optional<std::string> percent_decoded(std::string_view text);

/// `name:id,name:id`.
std::string reference_text(const reference_list& refs);
std::optional<reference_list> parse_references(std::string_view text);

/// The canonical payload: `neuroshard-tx-v1`, then key=value lines from chain_id to public_key. tx_id is its
/// SHA-256. The second form writes into a text that is used again.
std::string canonical_payload(const transaction& of, const kernels::digest& chain_id);
void canonical_payload(const transaction& of, const kernels::digest& chain_id, std::string& text);

/// SHA-256 of a transaction's posting lines, sorted. A line is `account part delta\n`, delta in atto with a
/// minus where it takes. To be used again after `finish`.
class posting_hasher {
public:
  void add(std::string_view account, account_part part, bool negative, neuro_amount amount);
  kernels::digest finish();

private:
  std::vector<std::string> lines_;
  size_t used_ = 0;
};
kernels::digest postings_hash(const std::vector<posting>& postings);

/// SHA-256("neuroshard-row-v1\n" || prev_hash || seq as u64 BE || SHA-256(payload || signature) ||
/// postings_hash).
kernels::digest row_hash(const kernels::digest& previous, uint64_t seq, std::string_view payload,
                         const std::optional<signature>& sig, const kernels::digest& postings);

/// The beginning of a book; its hash is the chain id.
struct genesis_record {
  std::string network;
  kernels::digest params_hash{};
  public_key node_key{};
  int64_t created_us = 0;
  std::string wallet; ///< address of the book's own wallet; not hashed
};
kernels::digest chain_id_of(const genesis_record& genesis);

} // namespace neuroshard
