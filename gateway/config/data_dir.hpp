#pragma once

#include "gateway/config/schema.hpp"
#include "gateway/config/start_error.hpp"

#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace neuroshard {

/// The paths of network.md section 8 under one data directory. Makes nothing.
struct data_paths {
  std::string root; ///< absolute
  std::string wallet() const { return root + "/wallet.json"; }
  std::string wallet_backup() const { return root + "/wallet-backup.txt"; }
  std::string config_json() const { return root + "/config.json"; }
  std::string tls() const { return root + "/tls"; }
  std::string tls_certificate() const { return root + "/tls/node.crt"; }
  std::string tls_key() const { return root + "/tls/node.key"; }
  std::string ledger() const { return root + "/ledger.db"; }
  std::string peers() const { return root + "/peers.json"; }
  std::string checkpoints() const { return root + "/checkpoints"; }
  /// `wallet_id`: 16 hex digits.
  std::string checkpoints(const std::string& wallet_id, int64_t instance) const;
  /// Of other nodes, on their way here.
  std::string incoming_checkpoints() const { return root + "/checkpoints/incoming"; }
  std::string data_cache() const { return root + "/data_cache"; }
  std::string training_logs() const { return root + "/training_logs"; }
  std::string logs() const { return root + "/logs"; }
  std::string log() const { return root + "/logs/node.log"; }
  std::string pid() const { return root + "/node.pid"; }
  std::string lock() const { return root + "/lock"; }
};

/// Who holds the lock of a data directory.
struct lock_holder {
  pid_t pid = 0;   ///< 0 = somebody, who has not written it down
  std::string url; ///< of its API, or empty
};

/// Asks without taking it. Nothing: nobody, or no such directory.
std::optional<lock_holder> who_holds(const data_paths& paths);

/// A data directory that this process has for itself, until the object dies or the process ends, however it
/// ends. Survives fork.
class data_dir {
public:
  /// Makes the directory and its subdirectories (0700), tightens the root's mode, tries to write, and takes
  /// the lock. Exit code 3 with one line on failure; the line names the holder.
  static start_result<data_dir> open(const std::string& root);

  data_dir(data_dir&& other) noexcept;
  data_dir& operator=(data_dir&& other) noexcept;
  ~data_dir();

  const data_paths& paths() const noexcept { return paths_; }
  /// Writes this process's id and the address of its API into the lock file, for `who_holds`. After a fork,
  /// call it in the child.
  void sign(const std::string& url);

private:
  data_dir(data_paths paths, int fd) : paths_(std::move(paths)), fd_(fd) {}
  data_paths paths_;
  int fd_ = -1;
};

/// Writes a file as a whole or not at all: temporary file in the same directory, fsync, rename, fsync of the
/// directory.
start_result<done> write_file_atomically(const std::string& path, std::string_view content,
                                         mode_t mode = 0600);
/// A whole file of at most `limit` bytes; an error line without the path's content otherwise.
start_result<std::string> read_file_bounded(const std::string& path, size_t limit);

/// config.json: what SDKs on this machine read, and the settings changed with PATCH /config.
struct config_json {
  std::string url;
  std::string token; ///< secret
  double timeout_s = 30;
  std::vector<std::pair<std::string, config_value>> settings; ///< dotted key of network.md section 9
};
/// Nothing when there is no file. An error when it is damaged: then the caller may set it aside.
start_result<std::optional<config_json>> read_config_json(const std::string& path);
/// Atomically, mode 0600.
start_result<done> write_config_json(const std::string& path, const config_json& content);

} // namespace neuroshard
