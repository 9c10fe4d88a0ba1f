#pragma once

#include "actors/identity/node_identity.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/load_config.hpp"
#include "gateway/config/start_error.hpp"

#include <memory>
#include <string>

namespace neuroshard {

/// Who this node is, and what its start has to tell about it.
struct started_identity {
  std::shared_ptr<const node_identity> identity;
  access_token token;      ///< canonical; goes into config.json for the SDKs of this machine
  secret_text words;       ///< of a wallet made now, to be shown once on the terminal; else empty
  std::string wallet_file; ///< empty when a token was given
  std::string words_file;  ///< where the words went when there is no terminal
};

/// The given token, else the wallet of the data directory, else a new wallet. `terminal`: whether somebody
/// can read the words; otherwise they go to wallet-backup.txt (0600). Exit code 1 for a bad token, 3 for a
/// wallet file that cannot be read or written.
start_result<started_identity> start_identity(const loaded_config& loaded, const data_paths& paths,
                                              bool terminal, random_source& random, int64_t now_unix_ms);

} // namespace neuroshard
