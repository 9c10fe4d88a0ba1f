#include "actors/identity/wallet_file.hpp"

#include "actors/identity/keys.hpp"

#define RAPIDJSON_HAS_STDSTRING 1
#include <rapidjson/document.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace neuroshard {

namespace {

constexpr size_t file_bytes_max = 64 * 1024;

struct open_file {
  int fd = -1;
  ~open_file() {
    if (fd >= 0)
      ::close(fd);
  }
};

/// Bytes of a file that are wiped when they go.
struct wiped_file {
  std::vector<char> bytes;
  ~wiped_file() { wipe(bytes.data(), bytes.size()); }
};

caf::error disk_error(const std::string& path, const char* did) {
  return refuse(errc::storage,
                "Could not " + std::string(did) + " " + path + ": " + std::strerror(errno) + ".");
}

caf::error damaged(const std::string& path, const char* why) {
  return refuse(errc::data_loss, path + " is not a wallet file: " + why + ".");
}

/// Reads a file that nobody but its owner may touch.
caf::error read_private(const std::string& path, std::vector<char>& out) {
  const open_file file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    if (errno == ENOENT)
      return refuse(errc::not_found, path + " does not exist.");
    return disk_error(path, "read");
  }
  struct stat info {};
  if (::fstat(file.fd, &info) != 0)
    return disk_error(path, "read");
  if (!S_ISREG(info.st_mode))
    return refuse(errc::storage, path + " is not a regular file.");
  if ((info.st_mode & 077) != 0 || info.st_uid != ::geteuid()) {
    problem what;
    what.message = path + " holds a secret and must belong to you alone; run: chmod 600 " + path;
    what.reason = "mode";
    return refuse(errc::forbidden, std::move(what));
  }
  out.reserve(file_bytes_max + 1); // No growing: it would leave copies behind.
  out.resize(file_bytes_max + 1);
  size_t held = 0;
  while (held < out.size()) {
    const ssize_t got = ::read(file.fd, out.data() + held, out.size() - held);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return disk_error(path, "read");
    if (got == 0)
      break;
    held += static_cast<size_t>(got);
  }
  if (held > file_bytes_max)
    return refuse(errc::data_loss, path + " is larger than 64 KiB.");
  out.resize(held);
  return {};
}

/// Makes a new file of mode 0600 that appears whole or not at all, and is on disk when this returns.
caf::error write_new_private(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".new." + std::to_string(::getpid());
  ::unlink(temporary.c_str());
  {
    const open_file file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
    if (file.fd < 0)
      return disk_error(path, "write");
    caf::error failed;
    for (size_t at = 0; at < text.size() && !failed;) {
      const ssize_t put = ::write(file.fd, text.data() + at, text.size() - at);
      if (put >= 0)
        at += static_cast<size_t>(put);
      else if (errno != EINTR)
        failed = disk_error(path, "write");
    }
    if (!failed && ::fsync(file.fd) != 0)
      failed = disk_error(path, "write");
    // link, not rename: it fails where the name is taken.
    if (!failed && ::link(temporary.c_str(), path.c_str()) != 0)
      failed = errno == EEXIST
                   ? refuse(errc::already_exists, path + " is already there; it is not overwritten.")
                   : disk_error(path, "write");
    ::unlink(temporary.c_str());
    if (failed)
      return failed;
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const open_file directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.fd < 0 || ::fsync(directory.fd) != 0)
    return disk_error(folder, "sync");
  return {};
}

} // namespace

caf::expected<wallet_file> read_wallet_file(const std::string& path) {
  wiped_file file;
  if (auto failed = read_private(path, file.bytes))
    return failed;
  file.bytes.push_back('\0');
  // Read in place, so that no second copy of the token is made.
  rapidjson::Document json;
  json.ParseInsitu<rapidjson::kParseIterativeFlag>(file.bytes.data());
  if (json.HasParseError() || !json.IsObject())
    return damaged(path, "no JSON object");
  const auto text_of = [&](const char* name) -> std::string_view {
    const auto found = json.FindMember(name);
    if (found == json.MemberEnd() || !found->value.IsString())
      return {};
    return {found->value.GetString(), found->value.GetStringLength()};
  };
  const auto version = json.FindMember("version");
  if (version == json.MemberEnd() || !version->value.IsInt())
    return damaged(path, "no version");
  if (version->value.GetInt() != 1)
    return damaged(path, "made by a newer program");
  const auto token_text = text_of("token");
  const auto address = parse_address(text_of("address"));
  if (token_text.empty() || !address)
    return damaged(path, "token or address missing");
  auto token = parse_token(token_text);
  if (!token)
    return damaged(path, "its token is not valid");
  const auto key = wallet_key(token->canonical.view());
  if (!key)
    return damaged(path, "its token is not valid");
  if (address_of(key->pub) != *address)
    return damaged(path, "token and address do not belong together");
  return wallet_file{std::move(*token), *address};
}

caf::error write_wallet_file(const std::string& path, const access_token& token, std::string_view address) {
  if (token.form == token_form::word)
    return refuse(errc::invalid_request, "A token of one word is not stored.");
  // Hex digits need no escaping. Put together in one allocation that is wiped.
  wiped_file text;
  text.bytes.reserve(256);
  const auto add = [&](std::string_view part) {
    text.bytes.insert(text.bytes.end(), part.begin(), part.end());
  };
  add("{\n  \"version\": 1,\n  \"token\": \"");
  add(token.canonical.view());
  add("\",\n  \"address\": \"");
  add(address);
  add("\"\n}\n");
  return write_new_private(path, {text.bytes.data(), text.bytes.size()});
}

caf::expected<access_token> read_token_file(const std::string& path) {
  wiped_file file;
  if (auto failed = read_private(path, file.bytes))
    return failed;
  return parse_token({file.bytes.data(), file.bytes.size()});
}

caf::error write_secret_file(const std::string& path, std::string_view text) {
  return write_new_private(path, text);
}

} // namespace neuroshard
