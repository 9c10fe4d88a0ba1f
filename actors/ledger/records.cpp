#include "actors/ledger/records.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>

namespace neuroshard {

namespace {

void append_hex(std::string& to, std::span<const uint8_t> bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  for (const uint8_t byte : bytes) {
    to.push_back(digits[byte >> 4]);
    to.push_back(digits[byte & 15]);
  }
}

template <class Integer>
void append_number(std::string& to, Integer value) {
  std::array<char, 24> digits;
  to.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

void append_encoded(std::string& to, std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || c == '-';
    if (plain) {
      to.push_back(c);
    } else {
      to.push_back('%');
      to.push_back(digits[static_cast<uint8_t>(c) >> 4]);
      to.push_back(digits[static_cast<uint8_t>(c) & 15]);
    }
  }
}

} // namespace

const char* to_string(transaction_kind kind) noexcept {
  switch (kind) {
  case transaction_kind::transfer:
    return "transfer";
  case transaction_kind::stake:
    return "stake";
  case transaction_kind::unstake:
    return "unstake";
  case transaction_kind::unstake_release:
    return "unstake_release";
  case transaction_kind::reward:
    return "reward";
  case transaction_kind::reward_mature:
    return "reward_mature";
  case transaction_kind::reward_void:
    return "reward_void";
  case transaction_kind::infer_reserve:
    return "infer_reserve";
  case transaction_kind::infer_settle:
    return "infer_settle";
  case transaction_kind::infer_refund:
    return "infer_refund";
  case transaction_kind::slash:
    return "slash";
  }
  return "";
}

bool is_signed(transaction_kind kind) noexcept {
  return kind == transaction_kind::transfer || kind == transaction_kind::stake ||
         kind == transaction_kind::unstake;
}

const char* to_string(account_part part) noexcept {
  switch (part) {
  case account_part::available:
    return "available";
  case account_part::staked:
    return "staked";
  case account_part::pending:
    return "pending";
  }
  return "";
}

std::string percent_encoded(std::string_view text) {
  std::string out;
  append_encoded(out, text);
  return out;
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    uint8_t byte = 0;
    if (i + 2 >= text.size() || !from_hex(text.substr(i + 1, 2), &byte, 1))
      return std::nullopt;
    out.push_back(static_cast<char>(byte));
    i += 2;
  }
  return out;
}

std::string reference_text(const reference_list& refs) {
  std::string text;
  for (const auto& [name, id] : refs) {
    if (!text.empty())
      text.push_back(',');
    text.append(name).append(":").append(id);
  }
  return text;
}

std::optional<reference_list> parse_references(std::string_view text) {
  reference_list refs;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(','));
    const size_t colon = one.find(':');
    if (colon == std::string_view::npos)
      return std::nullopt;
    refs.emplace_back(one.substr(0, colon), one.substr(colon + 1));
    text.remove_prefix(std::min(one.size() + 1, text.size()));
  }
  return refs;
}

std::string canonical_payload(const transaction& of, const kernels::digest& chain_id) {
  std::string text;
  canonical_payload(of, chain_id, text);
  return text;
}

void canonical_payload(const transaction& of, const kernels::digest& chain_id, std::string& text) {
  const auto key = [&](std::string_view name) -> std::string& { return text.append(name).append("="); };
  text.clear();
  text.reserve(640);
  text.append(transaction_tag).append("\n");
  append_hex(key("chain_id"), chain_id);
  key("\nkind").append(to_string(of.kind));
  key("\nfrom").append(of.from);
  key("\nto").append(of.to);
  key("\namount").append(to_atto_text(of.amount));
  key("\nfee").append(to_atto_text(of.fee));
  key("\nburned").append(to_atto_text(of.burned));
  append_number(key("\nnonce"), of.nonce);
  append_number(key("\ntimestamp"), of.timestamp_us);
  append_encoded(key("\nmemo"), of.memo);
  key("\nrefs");
  if (!of.refs.empty())
    append_encoded(text, reference_text(of.refs));
  key("\npublic_key");
  if (of.key)
    append_hex(text, *of.key);
  text.append("\n");
}

void posting_hasher::add(std::string_view account, account_part part, bool negative, neuro_amount amount) {
  if (used_ == lines_.size())
    lines_.emplace_back();
  std::string& line = lines_[used_++];
  line.clear();
  line.append(account).append(" ").append(to_string(part)).append(negative ? " -" : " ");
  line.append(to_atto_text(amount)).append("\n");
}

kernels::digest posting_hasher::finish() {
  std::sort(lines_.begin(), lines_.begin() + static_cast<ptrdiff_t>(used_));
  kernels::sha256 all;
  for (size_t i = 0; i < used_; ++i)
    all.update(std::string_view(lines_[i]));
  used_ = 0;
  return all.finish();
}

kernels::digest postings_hash(const std::vector<posting>& postings) {
  posting_hasher hasher;
  for (const auto& each : postings)
    hasher.add(each.account, each.part, each.negative, each.amount);
  return hasher.finish();
}

kernels::digest row_hash(const kernels::digest& previous, uint64_t seq, std::string_view payload,
                         const std::optional<signature>& sig, const kernels::digest& postings) {
  kernels::sha256 signed_part;
  signed_part.update(payload);
  if (sig)
    signed_part.update(std::span<const uint8_t>(*sig));
  const kernels::digest signed_hash = signed_part.finish();

  std::array<uint8_t, 8> number;
  for (int i = 0; i < 8; ++i)
    number[i] = static_cast<uint8_t>(seq >> (56 - 8 * i));
  return kernels::sha256()
      .update(std::string_view("neuroshard-row-v1\n"))
      .update(std::span<const uint8_t>(previous))
      .update(std::span<const uint8_t>(number))
      .update(std::span<const uint8_t>(signed_hash))
      .update(std::span<const uint8_t>(postings))
      .finish();
}

kernels::digest chain_id_of(const genesis_record& genesis) {
  const std::string text = "neuroshard-genesis-v1\nnetwork=" + percent_encoded(genesis.network) +
                           "\nparams_hash=" + kernels::to_hex(genesis.params_hash) +
                           "\nnode_public_key=" + kernels::to_hex(genesis.node_key) +
                           "\ncreated=" + std::to_string(genesis.created_us) + "\n";
  return kernels::sha256::of(std::string_view(text));
}

} // namespace neuroshard
