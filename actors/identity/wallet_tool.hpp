#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace neuroshard {

/// `neuroshard wallet new|show|sign|verify [...]`. `args` begin with the word after `wallet`:
///   new [--print-only]              makes DIR/wallet.json and shows its 12 words once; --print-only stores
///   nothing show [--instance N]             address, wallet id, public key, node id; never the token sign
///   [--tag TAG] [MESSAGE]      signs the message, or standard input; prints public key and signature as hex
///   verify --public-key HEX --signature HEX [--address 0x...] [--tag TAG] [MESSAGE]
/// Returns the exit code: 0 done or valid, 1 bad arguments or signature not valid, 3 the wallet cannot be
/// read or written.
int run_wallet_tool(const std::vector<std::string>& args, const std::string& data_dir, std::istream& in,
                    std::ostream& out, std::ostream& err);

} // namespace neuroshard
