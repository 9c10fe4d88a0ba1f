#pragma once

#include "actors/common/log.hpp"
#include "gateway/config/start_error.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace neuroshard {

/// Where log lines go.
struct log_options {
  std::string file;           ///< empty = no file
  std::string level = "INFO"; ///< TRACE, DEBUG, INFO, WARN, ERROR
  bool to_stderr = true;
  bool warnings_only_on_stderr = false; ///< while a person watches the progress line
  /// Instead of stderr: takes one line without its end, so that the console can keep its progress line apart.
  /// Called under the log's lock, from any thread; must not log.
  std::function<void(std::string_view)> to_console;
  size_t file_bytes = 10 * 1024 * 1024;
  size_t files = 10;
};

/// Sets up the process's log behind actors/common/log.hpp: a rotating file, and stderr. Before it is called
/// lines at WARN and above go to stderr. One object per process, made before threads start, destroyed last.
/// The functions are thread safe.
class logging {
public:
  static start_result<logging> start(const log_options& options);

  logging(logging&&) noexcept;
  logging& operator=(logging&&) noexcept;
  ~logging();

  /// Opens the file anew under its name (SIGHUP, after logrotate moved it). The old one goes on when that
  /// fails.
  start_result<done> reopen();
  /// TRACE, DEBUG, INFO, WARN or ERROR.
  void set_level(const std::string& level);
  void flush();

private:
  struct impl;
  explicit logging(std::unique_ptr<impl> held);
  std::unique_ptr<impl> held_;
};

/// The last `lines` lines of the log, oldest first, going back into rotated files where one holds fewer; at
/// most 16 MiB.
start_result<std::string> last_log_lines(const std::string& file, size_t lines);

} // namespace neuroshard
