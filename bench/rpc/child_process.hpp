#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace neuroshard::bench {

/// This program, started again with other arguments, and lines to and from it. Its standard error is ours.
/// Ends the program where it cannot be started. One thread uses it at a time.
class child_process {
public:
  explicit child_process(const std::vector<std::string>& arguments);
  /// Waits for its end.
  ~child_process();
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  pid_t id() const noexcept { return id_; }
  void write_line(const std::string& line);
  /// Without the end of line; nothing once it writes no more.
  std::optional<std::string> read_line();
  /// Ends its input, which is how it is told to end, and waits; true when it ended with 0. Idempotent.
  bool end();

private:
  pid_t id_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
  bool well_ = false;
};

/// From now on the node's log goes to this file, and nothing of it to standard output, which belongs to the
/// parent. Ends the program where the file cannot be written.
void log_to_file(const std::string& path);

} // namespace neuroshard::bench
