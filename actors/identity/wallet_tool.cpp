#include "actors/identity/wallet_tool.hpp"

#include "actors/identity/node_identity.hpp"
#include "actors/identity/wallet_file.hpp"

#include <charconv>
#include <filesystem>
#include <istream>
#include <iterator>
#include <map>
#include <optional>
#include <ostream>
#include <system_error>

namespace neuroshard {

namespace {

constexpr int exit_done = 0;
constexpr int exit_refused = 1;
constexpr int exit_storage = 3;

constexpr std::string_view message_tag = "neuroshard-message-v1";
constexpr size_t message_bytes_max = 16 * 1024 * 1024;

constexpr const char* usage =
    "usage: neuroshard wallet new [--print-only]\n"
    "       neuroshard wallet show [--instance N]\n"
    "       neuroshard wallet sign [--tag TAG] [MESSAGE]\n"
    "       neuroshard wallet verify --public-key HEX --signature HEX [--address 0x...]\n"
    "                                [--tag TAG] [MESSAGE]\n"
    "MESSAGE is read from standard input when it is left out or '-'.\n";

/// Options with a value, flags, and at most one message.
struct parsed {
  std::map<std::string, std::string> options;
  std::optional<std::string> message;
};

std::optional<parsed> parse(const std::vector<std::string>& args, const std::vector<std::string>& with_value,
                            const std::vector<std::string>& flags, bool takes_message, std::ostream& err) {
  const auto known = [](const std::vector<std::string>& names, const std::string& name) {
    for (const auto& each : names)
      if (each == name)
        return true;
    return false;
  };
  parsed made;
  bool only_message = false;
  for (size_t i = 1; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (!only_message && arg == "--") {
      only_message = true;
    } else if (!only_message && arg.size() > 2 && arg.starts_with("--")) {
      const size_t equals = arg.find('=');
      const std::string name = arg.substr(0, equals);
      if (known(flags, name) && equals == std::string::npos) {
        made.options[name] = "yes";
      } else if (known(with_value, name) && equals != std::string::npos) {
        made.options[name] = arg.substr(equals + 1);
      } else if (known(with_value, name) && i + 1 < args.size()) {
        made.options[name] = args[++i];
      } else {
        err << "neuroshard wallet " << args[0] << ": unknown or incomplete option " << name << "\n" << usage;
        return std::nullopt;
      }
    } else if (takes_message && !made.message) {
      made.message = arg;
    } else {
      err << "neuroshard wallet " << args[0] << ": unexpected argument '" << arg << "'\n" << usage;
      return std::nullopt;
    }
  }
  return made;
}

std::optional<std::string> message_of(const parsed& from, std::istream& in, std::ostream& err) {
  if (from.message && *from.message != "-")
    return from.message;
  std::string text;
  std::array<char, 4096> buffer;
  while (in.read(buffer.data(), buffer.size()) || in.gcount() > 0) {
    text.append(buffer.data(), static_cast<size_t>(in.gcount()));
    if (text.size() > message_bytes_max) {
      err << "The message is longer than 16 MiB.\n";
      return std::nullopt;
    }
  }
  return text;
}

int say(const caf::error& failed, std::ostream& err) {
  err << problem_of(failed).message << "\n";
  const auto code = code_of(failed);
  return code == errc::invalid_request || code == errc::unauthorized ? exit_refused : exit_storage;
}

std::string wallet_path(const std::string& data_dir) {
  return data_dir + "/wallet.json";
}

int new_wallet(const parsed& from, const std::string& data_dir, std::ostream& out, std::ostream& err) {
  const auto random = system_random();
  const secret_text words = new_mnemonic(*random);
  auto token = parse_token(words.view());
  if (!token)
    return say(token.error(), err);
  const auto key = wallet_key(token->canonical.view());
  if (!key)
    return say(key.error(), err);
  const std::string address = address_of(key->pub);
  const bool store = !from.options.contains("--print-only");
  if (store) {
    // The wallet may be the first thing that is ever put there. A directory that cannot be made shows in the
    // write.
    std::error_code ignored;
    if (std::filesystem::create_directories(data_dir, ignored))
      std::filesystem::permissions(data_dir, std::filesystem::perms::owner_all, ignored);
    if (const auto failed = write_wallet_file(wallet_path(data_dir), *token, address))
      return say(failed, err);
  }
  out << "address: " << address << "\nwords:   " << words.view()
      << "\nWrite the 12 words down and keep them safe: they are the wallet, and they are not shown again.\n";
  if (store)
    out << "stored:  " << wallet_path(data_dir) << "\n";
  return exit_done;
}

int show_wallet(const parsed& from, const std::string& data_dir, std::ostream& out, std::ostream& err) {
  uint32_t instance = 0;
  if (const auto found = from.options.find("--instance"); found != from.options.end()) {
    const std::string& text = found->second;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), instance);
    if (failed != std::errc() || end != text.data() + text.size() || instance > 65535) {
      err << "--instance: '" << text << "' is not a number from 0 to 65535\n";
      return exit_refused;
    }
  }
  const auto wallet = read_wallet_file(wallet_path(data_dir));
  if (!wallet)
    return say(wallet.error(), err);
  const auto identity = node_identity::make(wallet->token, instance, system_time()->unix_us() / 1000);
  if (!identity)
    return say(identity.error(), err);
  out << "address:    " << identity->address() << "\nwallet id:  " << identity->wallet_id()
      << "\npublic key: " << kernels::to_hex(identity->wallet_public_key())
      << "\nnode id:    " << identity->node_id() << "\n";
  return exit_done;
}

std::string tag_of(const parsed& from) {
  const auto found = from.options.find("--tag");
  return found == from.options.end() ? std::string(message_tag) : found->second;
}

int sign_message(const parsed& from, const std::string& data_dir, std::istream& in, std::ostream& out,
                 std::ostream& err) {
  const std::string tag = tag_of(from);
  // Whoever asks for a signature of a text must not get one that a node takes for a transaction or a proof.
  if (tag.find('\n') != std::string::npos || (tag.starts_with("neuroshard-") && tag != message_tag)) {
    err << "--tag: tags of the node's own records are not signed by hand\n";
    return exit_refused;
  }
  const auto message = message_of(from, in, err);
  if (!message)
    return exit_refused;
  const auto wallet = read_wallet_file(wallet_path(data_dir));
  if (!wallet)
    return say(wallet.error(), err);
  const auto key = wallet_key(wallet->token.canonical.view());
  if (!key)
    return say(key.error(), err);
  out << "public key: " << kernels::to_hex(key->pub)
      << "\nsignature:  " << kernels::to_hex(sign(*key, tag, *message)) << "\n";
  return exit_done;
}

int verify_message(const parsed& from, std::istream& in, std::ostream& out, std::ostream& err) {
  const auto value = [&](const char* name) {
    const auto found = from.options.find(name);
    return found == from.options.end() ? std::string() : found->second;
  };
  public_key key;
  signature sig;
  if (!from_hex(value("--public-key"), key.data(), key.size())) {
    err << "--public-key: 66 hex digits are needed\n";
    return exit_refused;
  }
  if (!from_hex(value("--signature"), sig.data(), sig.size())) {
    err << "--signature: 128 hex digits are needed\n";
    return exit_refused;
  }
  const std::string address_text = value("--address");
  const auto address = parse_address(address_text);
  if (!address_text.empty() && !address) {
    err << "--address: '" << address_text << "' is no address\n";
    return exit_refused;
  }
  const auto message = message_of(from, in, err);
  if (!message)
    return exit_refused;
  if (address && address_of(key) != *address) {
    out << "not valid: the public key is not that of " << *address << "\n";
    return exit_refused;
  }
  if (!verify(key, sig, tag_of(from), *message)) {
    out << "not valid\n";
    return exit_refused;
  }
  out << "valid, signed by " << address_of(key) << "\n";
  return exit_done;
}

} // namespace

int run_wallet_tool(const std::vector<std::string>& args, const std::string& data_dir, std::istream& in,
                    std::ostream& out, std::ostream& err) {
  const std::string verb = args.empty() ? "" : args[0];
  if (verb == "--help" || verb == "-h" || (args.size() == 2 && (args[1] == "--help" || args[1] == "-h"))) {
    out << usage;
    return exit_done;
  }
  std::optional<parsed> from;
  if (verb == "new" && (from = parse(args, {}, {"--print-only"}, false, err)))
    return new_wallet(*from, data_dir, out, err);
  if (verb == "show" && (from = parse(args, {"--instance"}, {}, false, err)))
    return show_wallet(*from, data_dir, out, err);
  if (verb == "sign" && (from = parse(args, {"--tag"}, {}, true, err)))
    return sign_message(*from, data_dir, in, out, err);
  if (verb == "verify" &&
      (from = parse(args, {"--public-key", "--signature", "--address", "--tag"}, {}, true, err)))
    return verify_message(*from, in, out, err);
  if (verb == "new" || verb == "show" || verb == "sign" || verb == "verify")
    return exit_refused; // parse has said why
  err << usage;
  return exit_refused;
}

} // namespace neuroshard
