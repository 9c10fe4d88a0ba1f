#include "actors/peer_manager/peer_store.hpp"

#include "actors/common/log.hpp"

#include <rapidjson/document.h>
#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <set>

namespace neuroshard {

namespace {

constexpr const char* store_log = "peer_manager";
constexpr size_t host_max = 253;
constexpr int format_version = 1;

bool names_node(std::string_view text) {
  return text.size() == 32 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool names_host(std::string_view host) {
  return !host.empty() && host.size() <= host_max && std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '-' || c == ':' || c == '_' || c == '%';
  });
}

std::string_view text_of(const rapidjson::Value& object, const char* name) {
  const auto found = object.FindMember(name);
  if (found == object.MemberEnd() || !found->value.IsString())
    return {};
  return {found->value.GetString(), found->value.GetStringLength()};
}

std::optional<stored_peer> read_entry(const rapidjson::Value& entry, int64_t now_unix_us) {
  if (!entry.IsObject())
    return std::nullopt;
  stored_peer peer{std::string(text_of(entry, "node_id")), std::string(text_of(entry, "address")), 0};
  const auto seen = entry.FindMember("seen_unix_us");
  if (!names_node(peer.node_id) || !split_address(peer.address) || seen == entry.MemberEnd() ||
      !seen->value.IsInt64() || seen->value.GetInt64() < 0)
    return std::nullopt;
  peer.seen_unix_us = std::min(seen->value.GetInt64(), now_unix_us);
  return peer;
}

void seen_last_first(std::vector<stored_peer>& peers) {
  std::sort(peers.begin(), peers.end(), [](const auto& a, const auto& b) {
    return a.seen_unix_us != b.seen_unix_us ? a.seen_unix_us > b.seen_unix_us : a.node_id < b.node_id;
  });
}

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(descriptor, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

} // namespace

std::optional<std::pair<std::string, uint16_t>> split_address(std::string_view address) {
  const auto colon = address.rfind(':');
  if (colon == std::string_view::npos)
    return std::nullopt;
  auto host = address.substr(0, colon);
  const auto digits = address.substr(colon + 1);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed)
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string_view::npos)
    return std::nullopt;
  uint16_t port = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (!names_host(host) || read.ec != std::errc{} || read.ptr != digits.data() + digits.size() || port == 0)
    return std::nullopt;
  return std::pair(std::string(host), port);
}

std::string encode_peers(std::vector<stored_peer> peers) {
  seen_last_first(peers);
  peers.resize(std::min(peers.size(), store_rules::peers_max));
  rapidjson::StringBuffer out;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> json(out);
  json.SetIndent(' ', 2);
  json.StartObject();
  json.Key("version");
  json.Int(format_version);
  json.Key("peers");
  json.StartArray();
  for (const auto& peer : peers) {
    json.StartObject();
    json.Key("node_id");
    json.String(peer.node_id.data(), static_cast<rapidjson::SizeType>(peer.node_id.size()));
    json.Key("address");
    json.String(peer.address.data(), static_cast<rapidjson::SizeType>(peer.address.size()));
    json.Key("seen_unix_us");
    json.Int64(peer.seen_unix_us);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return std::string(out.GetString(), out.GetSize()) + "\n";
}

stored_peers decode_peers(std::string_view text, int64_t now_unix_us) {
  stored_peers found;
  rapidjson::Document json;
  // Iterative: a file of brackets must not use up the stack.
  json.Parse<rapidjson::kParseIterativeFlag>(text.data(), text.size());
  if (json.HasParseError() || !json.IsObject()) {
    found.fault = "it is not JSON";
    return found;
  }
  const auto version = json.FindMember("version");
  const auto peers = json.FindMember("peers");
  if (version == json.MemberEnd() || !version->value.IsInt() || version->value.GetInt() != format_version ||
      peers == json.MemberEnd() || !peers->value.IsArray()) {
    found.fault = "it is not a peer table of version 1";
    return found;
  }
  std::set<std::string, std::less<>> ids;
  for (const auto& entry : peers->value.GetArray()) {
    auto peer = read_entry(entry, now_unix_us);
    if (!peer || found.peers.size() >= store_rules::peers_max || ids.contains(peer->node_id)) {
      ++found.skipped;
      continue;
    }
    if (now_unix_us - peer->seen_unix_us > store_rules::kept_us)
      continue;
    ids.insert(peer->node_id);
    found.peers.push_back(std::move(*peer));
  }
  seen_last_first(found.peers);
  return found;
}

std::vector<stored_peer> read_peers_file(const std::string& path, int64_t now_unix_us) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) {
    if (errno != ENOENT)
      log::warn(store_log, "peers-not-read path={} why=\"{}\"", path, std::strerror(errno));
    return {};
  }
  stored_peers found;
  struct stat info {};
  std::string text(store_rules::bytes_max + 1, '\0');
  size_t size = 0;
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode))
    found.fault = "it is not a file";
  while (found.fault.empty() && size < text.size()) {
    const auto n = ::read(descriptor, text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      found.fault = std::strerror(errno);
    if (n <= 0)
      break;
    size += static_cast<size_t>(n);
  }
  ::close(descriptor);
  if (found.fault.empty() && size > store_rules::bytes_max)
    found.fault = "it is longer than 256 KiB";
  if (found.fault.empty())
    found = decode_peers({text.data(), size}, now_unix_us);
  if (!found.fault.empty())
    log::warn(store_log, "peers-not-read path={} why=\"{}\"", path, found.fault);
  else if (found.skipped > 0)
    log::warn(store_log, "peers-skipped path={} entries={} why=\"malformed, twice there or too many\"", path,
              found.skipped);
  return std::move(found.peers);
}

bool write_peers_file(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str()); // of a process that was killed
  const int descriptor =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0)
    return false;
  const bool written = write_all(descriptor, text) && ::fsync(descriptor) == 0;
  int why = errno;
  ::close(descriptor);
  if (written && ::rename(temporary.c_str(), path.c_str()) == 0)
    return true;
  why = written ? errno : why;
  ::unlink(temporary.c_str());
  errno = why;
  return false;
}

peer_store_actor::behavior_type peer_store(peer_store_actor::pointer, std::string path) {
  return {
      [path = std::move(path), failed = false](write_peers& what) mutable {
        const bool written = write_peers_file(path, encode_peers(std::move(what.peers)));
        if (!written && !failed)
          log::warn(store_log, "peers-not-written path={} why=\"{}\"", path, std::strerror(errno));
        failed = !written;
      },
  };
}

} // namespace neuroshard
