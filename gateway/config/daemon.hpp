#pragma once

#include "gateway/config/data_dir.hpp"
#include "gateway/config/start_error.hpp"

#include <chrono>
#include <optional>
#include <string>

namespace neuroshard {

/// The daemon's side of start-up: it tells the waiting parent how the start went, so that `--daemon` prints
/// errors on the terminal and ends with their exit code. Destroyed without a word: the parent reports a fatal
/// error.
class daemon_child {
public:
  explicit daemon_child(int fd) noexcept : fd_(fd) {}
  daemon_child(daemon_child&& other) noexcept;
  daemon_child& operator=(daemon_child&& other) noexcept;
  ~daemon_child();
  /// The node is up; the parent prints the line and ends with 0.
  void ready(const std::string& line);
  /// The node could not start.
  void failed(const start_error& why);

private:
  void tell(exit_code code, const std::string& line);
  int fd_ = -1;
};

/// Forks into the background (new session, stdin and stdout and stderr on /dev/null, working directory "/").
/// Returns only in the child; the parent waits up to `patience` for its word, prints it and exits. Call
/// before any thread exists and before the data directory is opened.
start_result<daemon_child> become_daemon(std::chrono::seconds patience = std::chrono::seconds(60));

/// Writes node.pid (0600).
start_result<done> write_pid_file(const data_paths& paths);
/// Removes node.pid if it names this process.
void remove_pid_file(const data_paths& paths);

/// A node that has the data directory now; a node.pid whose process is gone or is no node is stale and
/// ignored.
std::optional<lock_holder> running_node(const data_paths& paths);

/// --status: prints one line; 0 when a node runs, else 6.
exit_code report_status(const data_paths& paths);
/// --stop: SIGTERM, then waits for the lock to be free. 0 when it ended; 6 when none runs; 5 when it does not
/// end in `patience`.
exit_code stop_daemon(const data_paths& paths, std::chrono::seconds patience = std::chrono::seconds(45));
/// --logs: the last lines on stdout.
exit_code print_logs(const data_paths& paths, size_t lines);

} // namespace neuroshard
