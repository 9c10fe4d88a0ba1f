#include "gateway/config/daemon.hpp"

#include "gateway/config/logging.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <system_error>
#include <thread>

namespace neuroshard {

namespace {

/// Waits for the child's word: its exit code as a digit, then a line. Nothing when it died without one.
std::optional<std::pair<exit_code, std::string>> hear(int fd, std::chrono::seconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  std::string text;
  while (text.size() < 8192) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      return std::pair{exit_code::ok,
                       std::string("neuroshard is still starting; --status and --logs tell more")};
    pollfd wait{fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR)
      break;
    if (ready <= 0)
      continue;
    char block[1024];
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    text.append(block, static_cast<size_t>(n));
  }
  if (text.empty() || text[0] < '0' || text[0] > '9')
    return std::nullopt;
  return std::pair{static_cast<exit_code>(text[0] - '0'), text.substr(1)};
}

[[noreturn]] void parent_ends(int fd, pid_t middle, std::chrono::seconds patience) {
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) {
  }
  const auto word = hear(fd, patience);
  if (!word) {
    std::fputs("neuroshard: the daemon ended while starting; --logs may say why\n", stderr);
    std::fflush(nullptr);
    ::_exit(static_cast<int>(exit_code::fatal));
  }
  const bool good = word->first == exit_code::ok;
  std::fprintf(good ? stdout : stderr, good ? "%s\n" : "neuroshard: %s\n", word->second.c_str());
  std::fflush(nullptr);
  ::_exit(static_cast<int>(word->first));
}

start_error cannot(const char* what) {
  return {exit_code::fatal,
          fmt::format("--daemon: {} failed: {}", what, std::generic_category().message(errno))};
}

} // namespace

daemon_child::daemon_child(daemon_child&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

daemon_child& daemon_child::operator=(daemon_child&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

daemon_child::~daemon_child() {
  if (fd_ >= 0)
    ::close(fd_);
}

void daemon_child::tell(exit_code code, const std::string& line) {
  if (fd_ < 0)
    return;
  const std::string text =
      std::string(1, static_cast<char>('0' + static_cast<int>(code))) + line.substr(0, 4096);
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break; // The parent has gone; the daemon does not need it.
    rest.remove_prefix(static_cast<size_t>(n));
  }
  ::close(std::exchange(fd_, -1));
}

void daemon_child::ready(const std::string& line) {
  tell(exit_code::ok, line);
}

void daemon_child::failed(const start_error& why) {
  tell(why.code, why.line);
}

start_result<daemon_child> become_daemon(std::chrono::seconds patience) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return cannot("pipe");
  std::fflush(nullptr);
  const pid_t middle = ::fork();
  if (middle < 0)
    return cannot("fork");
  if (middle > 0) {
    ::close(ends[1]);
    parent_ends(ends[0], middle, patience);
  }
  ::close(ends[0]);
  // A second fork: the daemon is no session leader and can never gain a terminal.
  if (::setsid() < 0)
    ::_exit(static_cast<int>(exit_code::fatal));
  const pid_t last = ::fork();
  if (last != 0)
    ::_exit(last < 0 ? static_cast<int>(exit_code::fatal) : 0);
  const int null = ::open("/dev/null", O_RDWR);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(null, 1) < 0 || ::dup2(null, 2) < 0 || ::chdir("/") != 0)
    ::_exit(static_cast<int>(exit_code::fatal));
  if (null > 2)
    ::close(null);
  // A parent that was interrupted must not take the daemon with it when it reports.
  ::signal(SIGPIPE, SIG_IGN);
  return daemon_child(ends[1]);
}

start_result<done> write_pid_file(const data_paths& paths) {
  return write_file_atomically(paths.pid(), fmt::format("{}\n", ::getpid()), 0600);
}

void remove_pid_file(const data_paths& paths) {
  const auto text = read_file_bounded(paths.pid(), 64);
  if (!text)
    return;
  pid_t pid = 0;
  std::from_chars(text->data(), text->data() + text->size(), pid);
  if (pid == ::getpid())
    ::unlink(paths.pid().c_str());
}

std::optional<lock_holder> running_node(const data_paths& paths) {
  // The lock is the truth: it goes with its process, while a pid file may outlive it and its number be taken
  // by another.
  for (int attempt = 0; attempt < 10; ++attempt) {
    const auto holder = who_holds(paths);
    if (!holder)
      return std::nullopt;
    // Between taking the lock and writing its number down a starting node is nameless for a moment.
    if (holder->pid > 0 && ::kill(holder->pid, 0) == 0)
      return holder;
    if (holder->pid > 0 && errno == EPERM)
      return holder;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return lock_holder{};
}

exit_code report_status(const data_paths& paths) {
  const auto node = running_node(paths);
  if (!node) {
    std::printf("neuroshard: not running (data directory %s)\n", paths.root.c_str());
    return exit_code::not_running;
  }
  std::printf("neuroshard: running, process %d%s%s, data directory %s\n", static_cast<int>(node->pid),
              node->url.empty() ? "" : ", ", node->url.c_str(), paths.root.c_str());
  return exit_code::ok;
}

exit_code stop_daemon(const data_paths& paths, std::chrono::seconds patience) {
  const auto node = running_node(paths);
  if (!node) {
    std::fprintf(stderr, "neuroshard: not running (data directory %s)\n", paths.root.c_str());
    return exit_code::not_running;
  }
  if (node->pid <= 0 || ::kill(node->pid, SIGTERM) != 0) {
    std::fprintf(stderr, "neuroshard: process %d cannot be stopped: %s\n", static_cast<int>(node->pid),
                 std::generic_category().message(node->pid <= 0 ? ESRCH : errno).c_str());
    return exit_code::fatal;
  }
  const auto until = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < until) {
    const auto holder = who_holds(paths);
    if (!holder || (holder->pid > 0 && holder->pid != node->pid)) {
      std::printf("neuroshard: stopped (process %d)\n", static_cast<int>(node->pid));
      return exit_code::ok;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  std::fprintf(stderr, "neuroshard: process %d has not ended after %lld s; kill -9 %d ends it\n",
               static_cast<int>(node->pid), static_cast<long long>(patience.count()),
               static_cast<int>(node->pid));
  return exit_code::fatal;
}

exit_code print_logs(const data_paths& paths, size_t lines) {
  const auto text = last_log_lines(paths.log(), lines);
  if (!text) {
    std::fprintf(stderr, "neuroshard: %s\n", text.error().line.c_str());
    return text.error().code;
  }
  std::fwrite(text->data(), 1, text->size(), stdout);
  std::fflush(stdout);
  return exit_code::ok;
}

} // namespace neuroshard
