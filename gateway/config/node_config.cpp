#include "gateway/config/node_config.hpp"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

namespace neuroshard {

machine_facts read_machine_facts(const std::string& path) {
  machine_facts facts;
  // The affinity mask, not the machine: in a container or under taskset the rest is not ours.
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) == 0)
    facts.hardware_threads = std::max(1, CPU_COUNT(&mask));
  else
    facts.hardware_threads = std::max(1U, std::thread::hardware_concurrency());
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGE_SIZE);
  if (pages > 0 && page_bytes > 0)
    facts.physical_memory_mb = static_cast<int64_t>(pages) * page_bytes / (1024 * 1024);
  std::string existing = path.empty() ? "." : path;
  struct statvfs fs {};
  while (statvfs(existing.c_str(), &fs) != 0) {
    const size_t slash = existing.rfind('/');
    if (existing == "/" || existing == ".")
      return facts;
    existing = slash == std::string::npos ? "." : slash == 0 ? "/" : existing.substr(0, slash);
  }
  facts.free_disk_mb =
      static_cast<int64_t>(static_cast<unsigned __int128>(fs.f_bavail) * fs.f_frsize / (1024 * 1024));
  return facts;
}

int64_t effective_cpu_threads(const node_config& c, const machine_facts& machine) noexcept {
  return c.cpu_threads > 0 ? c.cpu_threads : std::max<int64_t>(1, machine.hardware_threads);
}

int64_t grpc_port(const node_config& c) noexcept {
  return c.port + 1000;
}

bool takes_layers(const node_config& c) noexcept {
  return !c.observer && !c.tracker_mode;
}

int64_t dht_port(const node_config& c) noexcept {
  if (!c.dht.enabled)
    return 0;
  if (c.dht.port > 0)
    return c.dht.port;
  return c.port + 2000 <= 65535 ? c.port + 2000 : 0;
}

bool http_is_loopback(const node_config& c) noexcept {
  return is_loopback_host(c.http_host);
}

std::string api_url(const node_config& c) {
  std::string host = c.http_host;
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    const in6_addr any = IN6ADDR_ANY_INIT;
    host = "[" + (std::memcmp(&v6, &any, sizeof any) == 0 ? std::string("::1") : host) + "]";
  } else if (host == "0.0.0.0") {
    host = "127.0.0.1";
  }
  return (c.api.tls_cert.empty() ? "http://" : "https://") + host + ":" + std::to_string(c.port);
}

bool is_loopback_host(const std::string& host) noexcept {
  if (host == "localhost")
    return true;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1)
    return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1)
    return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6))
    return v6.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6);
}

} // namespace neuroshard
