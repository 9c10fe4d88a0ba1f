#include "bench/rpc/child_process.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <exception>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace neuroshard::bench {

namespace {

[[noreturn]] void not_started(const char* what) {
  std::fprintf(stderr, "the program cannot start itself again: %s\n", what);
  std::exit(1);
}

} // namespace

child_process::child_process(const std::vector<std::string>& arguments) {
  int in[2], out[2]; // of the child
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0)
    not_started("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  std::string program = "/proc/self/exe";
  std::vector<std::string> words = arguments;
  std::vector<char*> argv{program.data()};
  for (auto& word : words)
    argv.push_back(word.data());
  argv.push_back(nullptr);
  std::fflush(stdout);
  if (::posix_spawn(&id_, program.c_str(), &actions, nullptr, argv.data(), environ) != 0)
    not_started("posix_spawn");
  posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  to_ = ::fdopen(in[1], "w");
  from_ = ::fdopen(out[0], "r");
  if (to_ == nullptr || from_ == nullptr)
    not_started("fdopen");
}

child_process::~child_process() {
  end();
}

void child_process::write_line(const std::string& line) {
  std::fprintf(to_, "%s\n", line.c_str());
  std::fflush(to_);
}

std::optional<std::string> child_process::read_line() {
  std::string line;
  for (int c = 0; (c = std::fgetc(from_)) != EOF;) {
    if (c == '\n')
      return line;
    line += static_cast<char>(c);
  }
  return std::nullopt;
}

void log_to_file(const std::string& path) {
  try {
    spdlog::set_default_logger(spdlog::basic_logger_mt("bench", path));
    spdlog::flush_on(spdlog::level::warn);
  } catch (const std::exception& why) {
    std::fprintf(stderr, "%s\n", why.what());
    std::exit(1);
  }
}

bool child_process::end() {
  if (id_ < 0)
    return well_;
  std::fclose(to_);
  int status = 0;
  well_ = ::waitpid(id_, &status, 0) == id_ && status == 0;
  std::fclose(from_);
  id_ = -1;
  return well_;
}

} // namespace neuroshard::bench
