#include "gateway/config/logging.hpp"

#include <fmt/core.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/dist_sink.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/spdlog.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <vector>

namespace neuroshard {

namespace {

/// The message with control characters replaced: text from outside cannot forge a second line or move the
/// cursor.
class one_line final : public spdlog::custom_flag_formatter {
public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    for (const char ch : message.payload)
      out.push_back(static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f ? ' ' : ch);
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return spdlog::details::make_unique<one_line>();
  }
};

std::unique_ptr<spdlog::pattern_formatter> formatter(const std::string& pattern) {
  auto made = std::make_unique<spdlog::pattern_formatter>();
  made->add_flag<one_line>('*').set_pattern(pattern);
  return made;
}

class callback_sink final : public spdlog::sinks::base_sink<std::mutex> {
public:
  explicit callback_sink(std::function<void(std::string_view)> to) : to_(std::move(to)) {}

protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    std::string_view line(text.data(), text.size());
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r'))
      line.remove_suffix(1);
    to_(line);
  }
  void flush_() override {}

private:
  std::function<void(std::string_view)> to_;
};

void to_stderr(std::string_view line) {
  std::string text(line);
  text += '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (n <= 0)
      return; // Nobody listens any more; the file has the line.
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

spdlog::level::level_enum level_of(const std::string& name) {
  if (name == "TRACE")
    return spdlog::level::trace;
  if (name == "DEBUG")
    return spdlog::level::debug;
  if (name == "WARN")
    return spdlog::level::warn;
  if (name == "ERROR")
    return spdlog::level::err;
  return spdlog::level::info;
}

start_error cannot_open(const std::string& file) {
  return {exit_code::data_directory, fmt::format("{}: the log file cannot be opened", file)};
}

} // namespace

struct logging::impl {
  log_options options;
  std::shared_ptr<spdlog::sinks::dist_sink_mt> sinks = std::make_shared<spdlog::sinks::dist_sink_mt>();
  spdlog::sink_ptr person;

  spdlog::sink_ptr open_file() const {
    try {
      auto file = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(
          options.file, options.file_bytes, options.files > 1 ? options.files - 1 : 1);
      file->set_formatter(formatter("%Y-%m-%dT%H:%M:%S.%eZ %l %*"));
      return file;
    } catch (const std::exception&) {
      return nullptr;
    }
  }
};

start_result<logging> logging::start(const log_options& options) {
  auto held = std::make_unique<impl>();
  held->options = options;
  std::vector<spdlog::sink_ptr> sinks;
  if (!options.file.empty()) {
    auto file = held->open_file();
    if (!file)
      return cannot_open(options.file);
    sinks.push_back(std::move(file));
  }
  if (options.to_stderr || options.to_console) {
    held->person = std::make_shared<callback_sink>(options.to_console ? options.to_console : to_stderr);
    held->person->set_formatter(formatter("%Y-%m-%dT%H:%M:%SZ %l %*"));
    if (options.warnings_only_on_stderr)
      held->person->set_level(spdlog::level::warn);
    sinks.push_back(held->person);
  }
  held->sinks->set_sinks(std::move(sinks));
  auto logger = std::make_shared<spdlog::logger>("neuroshard", held->sinks);
  logger->set_level(level_of(options.level));
  logger->flush_on(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
  spdlog::flush_every(std::chrono::seconds(1));
  return logging(std::move(held));
}

logging::logging(std::unique_ptr<impl> held) : held_(std::move(held)) {}
logging::logging(logging&&) noexcept = default;
logging& logging::operator=(logging&&) noexcept = default;

logging::~logging() {
  if (held_)
    spdlog::default_logger_raw()->flush();
}

start_result<done> logging::reopen() {
  if (held_->options.file.empty())
    return done{};
  flush();
  auto file = held_->open_file();
  if (!file)
    return cannot_open(held_->options.file);
  std::vector<spdlog::sink_ptr> sinks = {std::move(file)};
  if (held_->person)
    sinks.push_back(held_->person);
  held_->sinks->set_sinks(std::move(sinks));
  return done{};
}

void logging::set_level(const std::string& level) {
  spdlog::default_logger_raw()->set_level(level_of(level));
}

void logging::flush() {
  spdlog::default_logger_raw()->flush();
}

start_result<std::string> last_log_lines(const std::string& file, size_t lines) {
  constexpr size_t bytes_max = size_t{16} << 20;
  std::string out;
  size_t found = 0;
  // spdlog's names of older files: node.1.log, node.2.log, ...
  const size_t dot = file.rfind('.');
  for (size_t index = 0; index < 64 && found < lines && out.size() < bytes_max; ++index) {
    const std::string name = index == 0 ? file
                                        : fmt::format("{}.{}{}", file.substr(0, dot), index,
                                                      dot == std::string::npos ? "" : file.substr(dot));
    const int fd = ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      if (index == 0)
        return start_error{exit_code::data_directory, fmt::format("{}: there is no log", file)};
      break;
    }
    struct stat info {};
    off_t end = ::fstat(fd, &info) == 0 ? info.st_size : 0;
    std::string text;
    // Backwards in blocks until enough line ends are there.
    while (end > 0 && found <= lines && out.size() + text.size() < bytes_max) {
      char block[65536];
      const off_t from = end > static_cast<off_t>(sizeof block) ? end - static_cast<off_t>(sizeof block) : 0;
      const ssize_t n = ::pread(fd, block, static_cast<size_t>(end - from), from);
      if (n <= 0)
        break;
      for (ssize_t i = 0; i < n; ++i)
        found += block[i] == '\n' ? 1 : 0;
      text.insert(0, block, static_cast<size_t>(n));
      end = from;
    }
    ::close(fd);
    out.insert(0, text);
  }
  // Cut to the lines asked for.
  size_t at = out.size();
  size_t seen = 0;
  while (at > 0) {
    if (out[at - 1] == '\n' && seen++ == lines)
      break;
    --at;
  }
  return out.substr(at);
}

} // namespace neuroshard
