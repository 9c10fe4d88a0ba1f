#include "gateway/node/start_identity.hpp"

#include "actors/common/log.hpp"
#include "actors/identity/wallet_file.hpp"

namespace neuroshard {

namespace {

start_error refused(exit_code code, const std::string& where, const caf::error& why) {
  return {code, where + ": " + problem_of(why).message};
}

} // namespace

start_result<started_identity> start_identity(const loaded_config& loaded, const data_paths& paths,
                                              bool terminal, random_source& random, int64_t now_unix_ms) {
  started_identity made;
  if (loaded.token) {
    auto token = parse_token(loaded.token->text);
    if (!token)
      return refused(exit_code::bad_configuration, loaded.token->where, token.error());
    made.token = std::move(*token);
    if (made.token.guessable())
      log::warn("identity",
                "guessable-token where={} hint=\"one word can be guessed; use 12 words or 64 hex digits\"",
                loaded.token->where);
  } else if (auto stored = read_wallet_file(paths.wallet())) {
    made.token = std::move(stored->token);
    made.wallet_file = paths.wallet();
  } else if (code_of(stored.error()) != errc::not_found) {
    return refused(exit_code::data_directory, paths.wallet(), stored.error());
  } else {
    made.words = new_mnemonic(random);
    auto token = parse_token(made.words.view());
    if (!token)
      return refused(exit_code::fatal, "new wallet", token.error());
    made.token = std::move(*token);
  }

  auto identity = node_identity::make(made.token, static_cast<uint32_t>(loaded.config.instance), now_unix_ms);
  if (!identity)
    return refused(exit_code::bad_configuration, "token", identity.error());
  made.identity = std::make_shared<const node_identity>(std::move(*identity));

  if (!made.words.empty()) {
    // The backup is written before the wallet, so that no wallet exists whose words nobody ever saw.
    if (!terminal) {
      if (auto why = write_secret_file(paths.wallet_backup(), made.words.view()))
        return refused(exit_code::data_directory, paths.wallet_backup(), why);
      made.words_file = paths.wallet_backup();
      made.words = {};
    }
    if (auto why = write_wallet_file(paths.wallet(), made.token, made.identity->address()))
      return refused(exit_code::data_directory, paths.wallet(), why);
    made.wallet_file = paths.wallet();
  }
  return made;
}

} // namespace neuroshard
