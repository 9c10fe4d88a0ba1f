#pragma once

#include "actors/common/error.hpp"
#include "actors/identity/token.hpp"

#include <string>
#include <string_view>

namespace neuroshard {

/// `wallet.json`: {"version": 1, "token": 64 hex, "address": "0x..."}, mode 0600. The words are never stored.
struct wallet_file {
  access_token token;
  std::string address;
};

/// Refusals: not_found; storage (unreadable, not a regular file); forbidden with reason `mode` when others
/// may read it or it is someone else's; data_loss when it is not a wallet file or token and address disagree.
/// At most 64 KiB are read.
caf::expected<wallet_file> read_wallet_file(const std::string& path);

/// Written beside and renamed, synced, mode 0600. Refuses already_exists when the file is there: a wallet is
/// never overwritten.
caf::error write_wallet_file(const std::string& path, const access_token& token, std::string_view address);

/// A token kept in a file of its own (`--token-file`); mode 0600 enforced, surrounding blanks ignored.
caf::expected<access_token> read_token_file(const std::string& path);

/// Writes a secret text (the 12 words, when there is no terminal) to a new file of mode 0600, durably.
/// Refuses already_exists.
caf::error write_secret_file(const std::string& path, std::string_view text);

} // namespace neuroshard
